"""What a model takes and gives: named tensors with a dtype and a shape per row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np

from batchinfer.errors import BundleError

# The dtypes that Parquet, numpy and both TensorFlows share. "string" is bytes of any length.
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "string"),
)


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a signature.

    Attributes:
        name: the name that users map columns to, such as ``image``.
        tensor: the tensor's name in the graph, such as ``image:0``.
        dtype: one of `DTYPES`.
        shape: the whole shape, batch first; None is a dimension that the graph leaves open.
        lengths: for an input whose rows differ in length, the int64[n] tensor that takes how many
            values each row has; `tensor` takes the rows padded to one length, and the model
            ignores the padding. None where every row has the whole shape.
    """

    name: str
    tensor: str
    dtype: str
    shape: tuple[int | None, ...]
    lengths: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BundleError(
                f"tensor {self.name!r} has dtype {self.dtype}; expected one of {', '.join(DTYPES)}"
            )
        if not self.shape:
            raise BundleError(
                f"tensor {self.name!r} ({self.tensor}) is a scalar; expected a leading batch "
                "dimension, because every row is scored on its own"
            )
        if self.lengths is not None and len(self.shape) != 2:
            raise BundleError(
                f"tensor {self.name!r} has rows of different lengths and {len(self.shape)} "
                "dimensions; expected 2, the batch and the values of a row"
            )

    @property
    def row_shape(self) -> tuple[int | None, ...]:
        """The shape of one row: everything after the batch dimension."""
        return self.shape[1:]

    @property
    def num_values(self) -> int:
        """Values in one row; 0 where a dimension is left open."""
        product = 1
        for dim in self.row_shape:
            product *= dim or 0
        return product

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(object if self.dtype == "string" else self.dtype)

    @property
    def fed(self) -> tuple[str, ...]:
        """The graph's tensors that are fed for this input: its own, and that of the lengths."""
        return (self.tensor,) if self.lengths is None else (self.tensor, self.lengths)

    def __str__(self) -> str:
        dims = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        ragged = "" if self.lengths is None else "ragged "
        return f"{self.name}: {ragged}{self.dtype}[{dims}]"

    def to_json(self) -> dict[str, Any]:
        fields = {"tensor": self.tensor, "dtype": self.dtype, "shape": list(self.shape)}
        return fields if self.lengths is None else {**fields, "lengths": self.lengths}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a bundle, by name and in a fixed order.

    Attributes:
        inputs: at least one.
        outputs: at least one.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        for kind, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            if not names or len(set(names)) != len(names):
                raise BundleError(f"signature needs distinct {kind}; found {names}")
        if len(self._leading_dims()) > 1:
            raise BundleError(
                "inputs and outputs have different batch sizes: "
                + "; ".join(str(spec) for spec in self.inputs + self.outputs)
            )

    def _leading_dims(self) -> set[int]:
        dims = (spec.shape[0] for spec in self.inputs + self.outputs)
        return {dim for dim in dims if dim is not None}

    @property
    def fixed_batch_rows(self) -> int | None:
        """The only batch size that the graph can run with, in rows; None when it is open."""
        return next(iter(self._leading_dims()), None)

    def with_outputs(self, names: Sequence[str]) -> Signature:
        """The same model with only these of its outputs, in the order that they have here."""
        return Signature(self.inputs, tuple(one for one in self.outputs if one.name in names))

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": {spec.name: spec.to_json() for spec in self.inputs},
            "outputs": {spec.name: spec.to_json() for spec in self.outputs},
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Signature:
        """Rebuild what `to_json` gave; names come back sorted, so that order is not data."""
        return cls(inputs=_specs(fields["inputs"]), outputs=_specs(fields["outputs"]))


def _specs(fields: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(name, spec["tensor"], spec["dtype"], tuple(spec["shape"]), spec.get("lengths"))
        for name, spec in sorted(fields.items())
    )
