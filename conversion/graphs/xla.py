"""XLA's own operations, as its documentation defines them, in ops of TensorFlow.

https://www.tensorflow.org/xla/operation_semantics
"""

from __future__ import annotations

import string
from typing import Any, List, Optional, Sequence, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.contraction import contraction


def dot_general(lhs: Any, rhs: Any, numbers: Any) -> Optional[Any]:
    """DotGeneral; dimensions come out as batch, left, right. None for operands of unknown rank.

    Args:
        numbers: a DotDimensionNumbers.
    """
    if lhs.shape.ndims is None or rhs.shape.ndims is None:
        return None
    left = string.ascii_lowercase[: lhs.shape.ndims]
    right = list(string.ascii_uppercase[: rhs.shape.ndims])
    pairs = list(zip(numbers.rhs_contracting_dimensions, numbers.lhs_contracting_dimensions))
    pairs += zip(numbers.rhs_batch_dimensions, numbers.lhs_batch_dimensions)
    for mine, theirs in pairs:
        right[mine] = left[theirs]
    batch = [left[axis] for axis in numbers.lhs_batch_dimensions]
    shared = set(left) & set(right)
    output = batch + [one for one in list(left) + right if one not in shared]
    return contraction(f"{left},{''.join(right)}->{''.join(output)}", [lhs, rhs])


def pad(
    x: Any, value: Any, low: Sequence[int], high: Sequence[int], interior: Sequence[int]
) -> Optional[Any]:
    """Pad: `interior` values between the elements first, then `low` before and `high` behind,
    which cut off where they are negative. None for a tensor of unknown rank."""
    if x.shape.ndims is None:
        return None
    for axis, number in enumerate(interior):
        x = _spread(x, value, axis, number) if number else x
    before, behind = ([min(edge, 0) for edge in edges] for edges in (low, high))
    if any(before) or any(behind):
        cuts = [slice(-first, last or None) for first, last in zip(before, behind)]
        x = x[tuple(cuts)]
    paddings = [(max(first, 0), max(last, 0)) for first, last in zip(low, high)]
    return tf.pad(x, paddings, constant_values=value) if any(map(any, paddings)) else x


def _spread(x: Any, value: Any, axis: int, number: int) -> Any:
    """`number` values behind each element along one axis, but for the last."""
    sizes = dims(x)
    behind = [[0, 0]] * (len(sizes) + 1)
    behind[axis + 1] = [0, number]
    made = tf.pad(tf.expand_dims(x, axis + 1), behind, constant_values=value)
    full = tf.reshape(made, sizes[:axis] + [sizes[axis] * (number + 1)] + sizes[axis + 1 :])
    cut = [slice(None)] * len(sizes)
    cut[axis] = slice(None, sizes[axis] * (number + 1) - number)
    return full[tuple(cut)]


def dynamic_slice(x: Any, start: Any, sizes: Sequence[int]) -> Optional[Any]:
    """DynamicSlice: the start is moved so far that the slice lies inside."""
    if x.shape.ndims is None:
        return None
    begin = _inside(x, start, list(sizes))
    made = tf.slice(x, begin, list(sizes)) if sizes else x
    made.set_shape(list(sizes))
    return made


def dynamic_update_slice(x: Any, update: Any, start: Any) -> Optional[Any]:
    """DynamicUpdateSlice: `update` in the place of a slice, moved inside as well.

    The values are chosen, not multiplied, so that infinities stay what they are.
    """
    if x.shape.ndims is None or update.shape.ndims is None:
        return None
    if not x.shape.ndims:
        return tf.identity(update)
    sizes, extents = dims(x), dims(update)
    begin = tf.unstack(_inside(x, start, extents), num=len(sizes))
    paddings = [
        [first, size - extent - first] for first, size, extent in zip(begin, sizes, extents)
    ]
    chosen = tf.constant(True)
    for axis, (first, size, extent) in enumerate(zip(begin, sizes, extents)):
        place = tf.range(size)
        inside = tf.logical_and(place >= first, place < first + extent)
        shape = [1] * axis + [-1] + [1] * (len(sizes) - axis - 1)
        chosen = tf.logical_and(chosen, tf.reshape(inside, shape))
    return tf.where(chosen, tf.pad(update, paddings), x)


def _inside(x: Any, start: Any, sizes: List[Any]) -> Any:
    """The start as int32, clamped to [0, dimension - size]."""
    last = [full - size for full, size in zip(dims(x), sizes)]
    start = tf.cast(start, tf.int32)
    return tf.maximum(tf.minimum(start, tf.stack(last)), 0) if last else start


def sort(keys: Any, *values: Any) -> Optional[List[Any]]:
    """Sort: ascending along the last dimension; `values` follow their keys.

    TopK takes the largest first, so it is given keys in reverse order: `~x` of integers, `-x` of
    floats, both exact. Where a NaN comes is not defined.
    """
    if keys.shape.ndims in (None, 0):
        return None
    reverse = tf.bitwise.invert if keys.dtype.is_integer else tf.negative
    top, index = tf.nn.top_k(reverse(keys), k=dims(keys)[-1])
    along = {"batch_dims": keys.shape.ndims - 1, "axis": keys.shape.ndims - 1}
    return [reverse(top)] + [tf.gather(value, index, **along) for value in values]


REDUCERS = {
    "Add": (tf.reduce_sum, tf.add),
    "AddV2": (tf.reduce_sum, tf.add),
    "Mul": (tf.reduce_prod, tf.multiply),
    "Maximum": (tf.reduce_max, tf.maximum),
    "Minimum": (tf.reduce_min, tf.minimum),
}


def reduce(x: Any, init: Any, axes: Sequence[int], op: str) -> Any:
    """Reduce by the op of a reducer that is nothing else."""
    over, combine = REDUCERS[op]
    return combine(over(x, list(axes)), init)


def broadcast_helper(lhs: Any, rhs: Any, axes: Sequence[int]) -> Optional[Tuple[Any, Any]]:
    """Give the operand of lower rank dimensions of 1, so that its own become `axes`."""
    ranks = lhs.shape.ndims, rhs.shape.ndims
    if None in ranks:
        return None
    if not len(axes):
        return tf.identity(lhs), tf.identity(rhs)
    low, high = (lhs, rhs) if ranks[0] < ranks[1] else (rhs, lhs)
    shape: List[Any] = [1] * high.shape.ndims
    for axis, size in zip(axes, dims(low)):
        shape[axis] = size
    made = tf.reshape(low, shape)
    return (made, tf.identity(rhs)) if low is lhs else (tf.identity(lhs), made)


def dims(x: Any) -> List[Any]:
    """Each dimension of a tensor of known rank: a number where it is known, else a scalar."""
    known = x.shape.as_list()
    if None not in known:
        return list(known)
    sizes = tf.unstack(tf.shape(x), num=len(known))
    return [size if size is not None else sizes[axis] for axis, size in enumerate(known)]
