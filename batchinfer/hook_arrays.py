"""What a hook returned against what it has to: arrays by name, each with its dtype and shape."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import numpy as np

from batchinfer.errors import ShardError
from batchinfer.hooks import Hook
from batchinfer.ragged import Ragged
from batchinfer.signature import TensorSpec


def checked(hook: Hook, found: Any, specs: Sequence[TensorSpec], num_rows: int) -> dict[str, Any]:
    """The arrays by name, as they are fed or written.

    Nothing is cast: a dtype that comes out wrong is a mistake in the hook, and the line that puts
    it right belongs there. Texts and bytes may be of any of numpy's kinds.

    Args:
        found: what the hook returned.
        num_rows: rows that it was given.

    Raises:
        ShardError: no dict, a missing or unknown name, another dtype or shape; all are listed.
    """
    if not isinstance(found, Mapping):
        raise ShardError(f"{hook} returned {_kind(found)}; expected a dict of arrays by name")
    names = [spec.name for spec in specs]
    lines = [
        f"unknown {name!r}, expected {', '.join(names)}" for name in found if name not in names
    ]
    arrays = {}
    for spec in specs:
        if spec.name not in found:
            lines.append(f"no {spec.name!r}, expected {_expected(spec, num_rows)}")
            continue
        problem = _problem(spec, found[spec.name], num_rows)
        if problem:
            lines.append(f"{spec.name!r}: expected {_expected(spec, num_rows)}, found {problem}")
        else:
            arrays[spec.name] = _as_fed(spec, found[spec.name])
    if lines:
        raise ShardError(f"{hook} returned for {num_rows} rows: " + "; ".join(lines))
    return arrays


def _problem(spec: TensorSpec, value: Any, num_rows: int) -> Optional[str]:
    """What was found, where it is not what was expected."""
    if spec.lengths is not None:
        return _ragged_problem(spec, value, num_rows)
    if not isinstance(value, np.ndarray):
        return _kind(value)
    shape = (num_rows, *spec.row_shape)
    fits = len(shape) == value.ndim and all(s in (None, d) for s, d in zip(shape, value.shape))
    return _other_than_text(spec, value) if fits and _dtype_fits(spec, value) else _kind(value)


def _ragged_problem(spec: TensorSpec, value: Any, num_rows: int) -> Optional[str]:
    pair = isinstance(value, tuple) and len(value) == 2
    if not pair or not all(isinstance(one, np.ndarray) and one.ndim == 1 for one in value):
        return _kind(value)
    values, lengths = value
    found = _other_than_text(spec, values)
    if found:
        return found
    if len(lengths) != num_rows or lengths.dtype.kind not in "iu" or not _dtype_fits(spec, values):
        return f"({_kind(values)}, {_kind(lengths)})"
    if lengths.min(initial=0) < 0 or lengths.sum() != len(values):
        return f"{len(values)} values and lengths with the sum {lengths.sum()}"
    most = spec.shape[1]
    return None if most is None or lengths.max(initial=0) <= most else f"a length {lengths.max()}"


def _dtype_fits(spec: TensorSpec, array: np.ndarray[Any, Any]) -> bool:
    return array.dtype.kind in "OSU" if spec.dtype == "string" else array.dtype == spec.numpy_dtype


def _other_than_text(spec: TensorSpec, array: np.ndarray[Any, Any]) -> Optional[str]:
    """The first object that is neither text nor bytes, such as pandas' NaN for what is missing."""
    if spec.dtype != "string" or array.dtype != object:
        return None
    for place, value in enumerate(array.reshape(-1)):
        if not isinstance(value, (str, bytes)):
            return f"{value!r} at {[int(one) for one in np.unravel_index(place, array.shape)]}"
    return None


def _as_fed(spec: TensorSpec, value: Any) -> Any:
    if spec.lengths is not None:
        return Ragged.of(value[0].astype(spec.numpy_dtype, copy=False), value[1].astype(np.int64))
    return value.astype(spec.numpy_dtype, copy=False)


def _expected(spec: TensorSpec, num_rows: int) -> str:
    if spec.lengths is not None:
        most = "" if spec.shape[1] is None else f", each at most {spec.shape[1]}"
        return f"(values: {spec.dtype}[sum of lengths], lengths: int64[{num_rows}]{most})"
    dims = ", ".join("?" if dim is None else str(dim) for dim in (num_rows, *spec.row_shape))
    return f"{str(spec).partition(': ')[2].partition('[')[0]}[{dims}]"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}[{', '.join(map(str, value.shape))}]"
    return f"a {type(value).__name__}"
