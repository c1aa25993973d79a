"""One Parquet column against one model input: does the type fit, which rows do not, the array.

A row's tensor may be stored as a plain value (shape ()), as nested lists with one level per
dimension, as one flat list in row-major order, or as the tensor's own little-endian bytes.
Where the rows of an input differ in length, each is one list of as many values as it has.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Dict, Optional, Tuple

import numpy as np

from batchinfer.arrow import pa
from batchinfer.ragged import Ragged
from batchinfer.signature import TensorSpec


def type_problem(column: pa.DataType, spec: TensorSpec) -> Optional[str]:
    """Why a column of this type can never feed this input; None when it can."""
    if spec.lengths is not None:
        leaf, widths = _levels(column)
        problem = _leaf_problem(leaf, spec)
        return problem or (None if len(widths) == 1 else f"expected a list of values for {spec}")
    if None in spec.row_shape:
        return (
            f"the model leaves the row shape of {spec} open: expected a fixed one, or --preprocess "
            "with a function that makes it"
        )
    leaf, widths = _levels(column.value_type if pa.types.is_dictionary(column) else column)
    size = spec.num_values
    if spec.dtype == "string" or not _is_bytes(leaf):
        problem = _leaf_problem(leaf, spec)
        shapes = {(), (size,), spec.row_shape} if size == 1 else {(size,), spec.row_shape}
        fits = any(_widths_fit(widths, shape) for shape in shapes)
    else:
        problem, fits = None, not widths
        if pa.types.is_fixed_size_binary(leaf):
            fits = fits and leaf.byte_width == size * spec.numpy_dtype.itemsize
    if problem or not fits:
        return problem or f"expected {size} values a row for {spec}"
    return None


def bad_rows(array: pa.Array, spec: TensorSpec) -> Dict[int, str]:
    """The rows that cannot be fed, with reasons; found by halving, so that clean data is fast."""
    if _row_problem(array, spec) is None:
        return {}
    if len(array) == 1:
        return {0: str(_row_problem(array, spec))}
    if array.null_count:  # as many as they like, without halving
        valid = np.asarray(array.is_valid())
        found = dict.fromkeys(np.flatnonzero(~valid).tolist(), "null")
        rest = np.flatnonzero(valid)
        for row, why in bad_rows(array.filter(pa.array(valid)), spec).items():
            found[int(rest[row])] = why
        return found
    half = len(array) // 2
    found = bad_rows(array.slice(0, half), spec)
    found.update({half + row: why for row, why in bad_rows(array.slice(half), spec).items()})
    return found


def to_rows(array: pa.Array, spec: TensorSpec) -> Any:
    """The rows as the model's input takes them: `to_numpy`, or Ragged where lengths differ.

    Args:
        array: a column without bad rows, as `bad_rows` finds them.
    """
    if spec.lengths is None:
        return to_numpy(array, spec)
    return Ragged.of(_values(_flatten(array), spec), _lengths(array))


def to_numpy(array: pa.Array, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """The rows as one array of shape (n, *row_shape) and the input's dtype.

    A view of Arrow's memory where layout and dtype allow it.

    Args:
        array: a column without bad rows, as `bad_rows` finds them.
    """
    shape = (len(array),) + tuple(int(dim or 0) for dim in spec.row_shape)
    leaf = _flatten(array)
    if _is_bytes(leaf.type) and spec.dtype != "string":
        data = _joined_bytes(leaf)
        return np.frombuffer(data, dtype=spec.numpy_dtype.newbyteorder("<")).reshape(shape)
    return _values(leaf, spec).reshape(shape)


def _values(leaf: pa.Array, spec: TensorSpec) -> np.ndarray[Any, Any]:
    """Values without their lists, in the input's dtype."""
    if spec.dtype == "string":
        return leaf.cast(pa.large_binary()).to_numpy(zero_copy_only=False)
    return _numbers(leaf).astype(spec.numpy_dtype, copy=False)


def _numbers(leaf: pa.Array) -> np.ndarray[Any, Any]:
    """A view of numbers without nulls; `to_numpy` looks for pandas each time: 0.5 ms without it."""
    if pa.types.is_boolean(leaf.type):  # bits
        return leaf.to_numpy(zero_copy_only=False)
    dtype, data = leaf.type.to_pandas_dtype(), leaf.buffers()[1]
    if data is None:
        return np.zeros(0, dtype)
    return np.frombuffer(data, dtype)[leaf.offset : leaf.offset + len(leaf)]


def _lengths(array: pa.Array) -> np.ndarray[Any, Any]:
    """How many values each list has."""
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size, np.int64)
    offsets = _numbers(array.offsets)
    return (offsets[1:] - offsets[:-1]).astype(np.int64, copy=False)


def _row_problem(array: pa.Array, spec: TensorSpec) -> Optional[str]:
    """What is wrong somewhere in these rows, in words for the case that it is one row."""
    if len(array) == 0:
        return None
    if array.null_count:
        return "null"
    if spec.lengths is not None:
        return _ragged_problem(array, spec)
    leaf, per_row = array, 1
    for expected in list_dims(array.type, spec):
        if not pa.types.is_fixed_size_list(leaf.type):
            lengths = _lengths(leaf)
            wrong = lengths[lengths != expected]
            if len(wrong):
                return f"list of {wrong[0]} values, expected {expected}"
        leaf = leaf.flatten()
        per_row *= expected
        if leaf.null_count:
            return "null inside the list"
    if spec.dtype == "string":
        return None
    if _is_bytes(leaf.type):
        return _bytes_problem(leaf, spec.num_values * spec.numpy_dtype.itemsize)
    return _range_problem(leaf, spec)


def _ragged_problem(array: pa.Array, spec: TensorSpec) -> Optional[str]:
    most, lengths = spec.shape[1], _lengths(array)
    if most is not None and lengths.max(initial=0) > most:
        return f"list of {lengths.max()} values, expected at most {most}"
    leaf = array.flatten()
    if leaf.null_count:
        return "null inside the list"
    return None if spec.dtype == "string" else _range_problem(leaf, spec)


def _bytes_problem(leaf: pa.Array, expected: int) -> Optional[str]:
    if pa.types.is_fixed_size_binary(leaf.type):
        return None
    offsets = _binary_offsets(leaf)
    lengths = np.diff(offsets)
    wrong = lengths[lengths != expected]
    return f"{wrong[0]} bytes, expected {expected}" if len(wrong) else None


def _range_problem(leaf: pa.Array, spec: TensorSpec) -> Optional[str]:
    """A value that the input's dtype cannot hold; NaN and infinity always fit a float.

    Least and largest integer tell for whole batches; floats are cast, which is faster than either.
    """
    source, target = np.dtype(leaf.type.to_pandas_dtype()), spec.numpy_dtype
    limits = _exact_limits(source, target)
    if limits is None or not len(leaf):
        return None
    values = _numbers(leaf)
    if source.kind in "iu" and _within(values, *limits):
        return None
    lost = values[_lost(values, target)]
    return f"{lost[0]} does not fit {spec.dtype}" if len(lost) else None


def _exact_limits(source: np.dtype[Any], target: np.dtype[Any]) -> Optional[Tuple[Any, Any]]:
    """Between which values nothing is lost; None where nothing ever is.

    Floats hold every integer up to 2 ** (bits of their mantissa): 2048, 2**24, 2**53. Between
    floats only what becomes infinite counts as lost, rounding does not.
    """
    if source.kind == "b" or source == target:
        return None
    if target.kind in "iu":
        low, high = np.iinfo(target).min, np.iinfo(target).max
    elif source.kind in "iu":
        high = 1 << (np.finfo(target).nmant + 1)
        low = -high
    else:
        low, high = float(np.finfo(target).min), float(np.finfo(target).max)
    bounds = np.finfo(source) if source.kind == "f" else np.iinfo(source)
    return None if low <= bounds.min and bounds.max <= high else (low, high)


def _within(values: np.ndarray[Any, Any], low: int, high: int) -> bool:
    """As Python's own integers, which compare exactly: numpy compares uint64 as a float."""
    return bool(low <= values.min().item() and values.max().item() <= high)


def _lost(values: np.ndarray[Any, Any], target: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Per value whether the cast changes an integer, or makes a finite float infinite."""
    if target.kind in "iu":
        low = max(np.iinfo(target).min, np.iinfo(values.dtype).min)
        high = min(np.iinfo(target).max, np.iinfo(values.dtype).max)
        return (values < low) | (values > high)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(target)
        if values.dtype.kind == "f":
            return np.isfinite(values) & ~np.isfinite(cast)
        # 2**63 and 2**64 are floats that no integer type of these has; the cast back is undefined.
        inside = np.isfinite(cast) & (cast.astype(np.float64) < float(np.iinfo(values.dtype).max))
        return ~inside | (np.where(inside, cast, 0).astype(values.dtype) != values)


def _leaf_problem(leaf: pa.DataType, spec: TensorSpec) -> Optional[str]:
    if spec.dtype == "string":
        fits = _is_bytes(leaf) or pa.types.is_string(leaf) or pa.types.is_large_string(leaf)
        return None if fits else f"expected strings or bytes for {spec}"
    if not (pa.types.is_boolean(leaf) or pa.types.is_integer(leaf) or pa.types.is_floating(leaf)):
        return f"expected numbers for {spec}"
    source, target = np.dtype(leaf.to_pandas_dtype()).kind, spec.numpy_dtype.kind
    fits = {"b": "b", "i": "biu", "u": "biu", "f": "biuf"}[target]
    return None if source in fits else f"cannot turn {leaf} into {spec.dtype} without losing values"


def _levels(column: pa.DataType) -> tuple[pa.DataType, list[Optional[int]]]:
    """The innermost type, and per list level its fixed width (None: any length)."""
    widths: list[Optional[int]] = []
    while _is_list(column):
        widths.append(column.list_size if pa.types.is_fixed_size_list(column) else None)
        column = column.value_type
    return column, widths


@lru_cache(maxsize=64)
def list_dims(column: pa.DataType, spec: TensorSpec) -> tuple[int, ...]:
    """The length that each list level must have: one per dimension, or all values in one."""
    depth = len(_levels(column)[1])
    dims = tuple(int(dim or 0) for dim in spec.row_shape)
    return dims if depth == len(dims) else (spec.num_values,) * depth


def _widths_fit(widths: list[Optional[int]], shape: tuple[Optional[int], ...]) -> bool:
    return len(widths) == len(shape) and all(w in (None, s) for w, s in zip(widths, shape))


def _flatten(array: pa.Array) -> pa.Array:
    while _is_list(array.type):
        array = array.flatten()
    return array


def _joined_bytes(leaf: pa.Array) -> Any:
    """The bytes of all rows, end to end, without a copy."""
    if pa.types.is_fixed_size_binary(leaf.type):
        width = leaf.type.byte_width
        return leaf.buffers()[1].slice(leaf.offset * width, len(leaf) * width)
    offsets = _binary_offsets(leaf)
    return leaf.buffers()[2].slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _binary_offsets(leaf: pa.Array) -> np.ndarray[Any, Any]:
    dtype = np.int64 if pa.types.is_large_binary(leaf.type) else np.int32
    offsets = np.frombuffer(leaf.buffers()[1], dtype=dtype)
    return offsets[leaf.offset : leaf.offset + len(leaf) + 1]


def _is_list(column: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(column) or types.is_large_list(column) or types.is_fixed_size_list(column)
    )


def _is_bytes(leaf: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_binary(leaf) or types.is_large_binary(leaf) or types.is_fixed_size_binary(leaf)
    )
