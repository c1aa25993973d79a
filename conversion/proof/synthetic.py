"""A signature -> seeded inputs that a model can be run with, from the likeliest to the safest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError
from batchinfer.ragged import Ragged
from batchinfer.signature import Signature, TensorSpec
from conversion.proof.rows import taken

SEED = 20
FEW = 10  # whole numbers are drawn below it where the graph does not tell how many there are
OPEN_DIMS = {2: 16, 3: 16}  # size of a dimension that the graph leaves open, by rank
OPEN_DIM = 64  # of an image
LARGE = 100  # times a float of a row that others are scored beside
INPUT_BYTES = 32 << 20  # all rows of a draw together


@dataclass(frozen=True)
class Draw:
    """Inputs of one run, and where they come from.

    Attributes:
        arrays: one array of shape (rows, *row_shape) per input.
        about: for the manifest.
    """

    arrays: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(next(iter(self.arrays.values())))

    def taken(self, rows: Any) -> Dict[str, Any]:
        """The rows of these numbers."""
        return {name: taken(array, rows) for name, array in self.arrays.items()}


# What floats look like: images and normalised features first.
FLOATS: Tuple[Tuple[str, Callable[[Any, Tuple[int, ...]], Any]], ...] = (
    ("N(0, 1)", lambda random, shape: random.standard_normal(shape)),
    ("[0, 1)", lambda random, shape: random.random_sample(shape)),
)


def why_not(signature: Signature) -> str:
    """Why inputs cannot be made up for a model; "" when they can."""
    texts = [spec.name for spec in signature.inputs if spec.dtype == "string"]
    if not texts:
        return ""
    return (
        f"input {', '.join(texts)} takes strings, and made-up strings mean nothing to a model; "
        "expected real ones in --reference"
    )


def draws(
    signature: Signature, rows: int, bounds: Mapping[str, int], seed: int = SEED
) -> Iterator[Draw]:
    """Inputs to try one after the other until the model runs and tells rows apart.

    Args:
        rows: leading size of each array.
        bounds: by input, the smallest whole number that it must not hold.

    Raises:
        InputError: an input is of strings.
    """
    problem = why_not(signature)
    if problem:
        raise InputError(problem)
    for floats, draw in FLOATS:
        for most in (None, 2):
            limits = {
                spec.name: _limit(spec, bounds, most)
                for spec in signature.inputs
                if np.dtype(spec.numpy_dtype).kind in "iu"
            }
            random = np.random.RandomState(seed)
            arrays = {
                spec.name: _rows(spec, _drawn(spec, rows, draw, limits.get(spec.name), random))
                for spec in signature.inputs
            }
            about: Dict[str, Any] = {"kind": "synthetic", "seed": seed, "rows": rows}
            about["floats"] = floats
            about["integers_below"] = limits
            yield Draw(arrays, about)


def _limit(spec: TensorSpec, bounds: Mapping[str, int], most: Optional[int]) -> int:
    if spec.dtype == "uint8" and most is None:
        return min(256, bounds.get(spec.name, 256))
    limit = bounds.get(spec.name, FEW)
    return min(limit, most, 127) if most else min(limit, int(np.iinfo(spec.numpy_dtype).max))


def _drawn(spec: TensorSpec, rows: int, draw: Any, limit: Optional[int], random: Any) -> Any:
    shape = (rows, *row_shape(spec))
    if spec.dtype == "bool":
        return random.random_sample(shape) < 0.5
    if limit is not None:
        return random.randint(0, max(limit, 1), shape).astype(spec.numpy_dtype)
    return draw(random, shape).astype(spec.numpy_dtype)


def _rows(spec: TensorSpec, array: Any) -> Any:
    """The array, or where rows differ in length, rows of 1, 2, 3, ... of its values."""
    if spec.lengths is None:
        return array
    return Ragged.unpadded(array, np.arange(len(array)) % array.shape[1] + 1)


def extremes(arrays: Mapping[str, Any]) -> Iterator[Tuple[str, Dict[str, Any]]]:
    """Rows that real batches hold and made-up ones do not: short, empty and large ones."""
    for what, change in (("short", _short), ("zero", _zero), ("large", _large)):
        changed = {name: _changed(array, change) for name, array in arrays.items()}
        if any(changed[name] is not array for name, array in arrays.items()):
            yield what, changed


def _changed(rows: Any, change: Callable[[Any], Any]) -> Any:
    if not isinstance(rows, Ragged):
        return change(rows)
    values = rows.padded()
    made = change(values)
    return rows if made is values else Ragged.unpadded(made, rows.lengths)


def _short(array: Any) -> Any:
    """Whole numbers, zero in the second half of each row, as padded ids and masks are."""
    if array.dtype.kind not in "iu" or array.ndim < 2:
        return array
    made = array.copy()
    made[..., array.shape[-1] // 2 :] = 0
    return made


def _zero(array: Any) -> Any:
    return array if array.dtype.kind in "OSU" else np.zeros_like(array)


def _large(array: Any) -> Any:
    return array * array.dtype.type(LARGE) if array.dtype.kind == "f" else array


def row_shape(spec: TensorSpec) -> Tuple[int, ...]:
    """One row's shape, open dimensions given a size."""
    assumed = OPEN_DIMS.get(len(spec.shape), OPEN_DIM)
    return tuple(assumed if dim is None else dim for dim in spec.row_shape)


def row_bytes(signature: Signature) -> int:
    """Bytes of one row of all inputs."""
    sizes: List[int] = [
        int(np.prod(row_shape(spec), dtype=np.int64)) * np.dtype(spec.numpy_dtype).itemsize
        for spec in signature.inputs
    ]
    return max(1, sum(sizes))
