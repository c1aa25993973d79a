"""A checkpoint's variables -> another checkpoint, by group, without passing through Python."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Iterable, Iterator, List, Sequence, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.weights.specs import Assignment, Dims

_CPU_ONLY = tf.ConfigProto(device_count={"GPU": 0})
GROUP_BYTES = 128 << 20  # values of small variables that are in memory at once
_STRING_BYTES = 64  # what an element of a string variable is taken for


def copy_variables(source: str, assignments: Iterable[Assignment], target: str) -> None:
    """Write the assigned variables of checkpoint `source` as checkpoint `target`.

    A session restores, casts and saves each group, so that every value is in memory once;
    each group becomes a data file, and none is written twice. Two lanes run beside each other,
    one of variables over `GROUP_BYTES`, each a group, and one of the others: at most the largest
    variable and `GROUP_BYTES` are in memory.

    Raises:
        InputError: a variable cannot be read.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    parts = list(groups(sorted(assignments, key=lambda assignment: assignment.target)))
    prefixes = [f"{target}_part{index}" for index in range(len(parts))]
    lanes: Tuple[List[int], List[int]] = ([], [])
    for index, group in enumerate(parts):
        lanes[_size_bytes(group[0]) > GROUP_BYTES].append(index)

    def run(lane: List[int]) -> None:
        for index in lane:
            _copy_group(source, parts[index], prefixes[index])

    with ThreadPoolExecutor(len(lanes)) as pool:
        for _ in pool.map(run, lanes):  # raises what a lane raised
            pass
    merge(prefixes, target)


def groups(assignments: Iterable[Assignment]) -> Iterator[List[Assignment]]:
    """In the same order, as many at a time as `GROUP_BYTES` hold, or one that is larger."""
    group: List[Assignment] = []
    size = 0
    for assignment in assignments:
        added = _size_bytes(assignment)
        if group and size + added > GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(assignment)
        size += added
    if group:
        yield group


def _size_bytes(assignment: Assignment) -> int:
    wanted = tf.as_dtype(assignment.variable.spec.dtype)
    item = _STRING_BYTES if wanted == tf.string else wanted.size
    return sum(_volume(piece.shape) for piece in assignment.pieces) * item


def _volume(shape: Dims) -> int:
    volume = 1
    for size in shape or ():
        volume *= size or 1
    return volume


def _copy_group(source: str, group: Sequence[Assignment], target: str) -> None:
    pieces = [piece for assignment in group for piece in assignment.pieces]
    with tf.Graph().as_default(), tf.Session(config=_CPU_ONLY) as session:
        values = tf.raw_ops.RestoreV2(
            prefix=source,
            tensor_names=[piece.spec.name for piece in pieces],
            shape_and_slices=[piece.restore_slice for piece in pieces],
            dtypes=[tf.as_dtype(piece.spec.dtype) for piece in pieces],
        )
        made, at = [], 0
        for assignment in group:
            end = at + len(assignment.pieces)
            made.append(_built(assignment, values[at:end]))
            at = end
        save = tf.raw_ops.SaveV2(
            prefix=target,
            tensor_names=[assignment.target for assignment in group],
            shape_and_slices=[str(one.saved_as or "") for one in group],
            tensors=made,
        )
        try:
            session.run(save)
        except tf.errors.OpError as error:
            raise InputError(
                f"checkpoint {source}: cannot copy {_listed(pieces)}: {_told(error)}"
            ) from error


def _told(error: Any) -> str:
    """What TensorFlow says, without where in the graph and in Python it says so."""
    return str(error.message).partition("\n\t [[")[0].splitlines()[-1]


def _built(assignment: Assignment, values: Sequence[Any]) -> Any:
    """The value of a variable, from what was restored; bfloat16 becomes the graph's dtype."""
    for step in assignment.steps:
        values = [step.apply(values)]
    wanted = tf.as_dtype(assignment.variable.spec.dtype)
    return values[0] if values[0].dtype == wanted else tf.cast(values[0], wanted)


def _listed(pieces: Sequence[Any]) -> str:
    names = [piece.text for piece in pieces]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def write_values(target: str, values: Iterable[Tuple[str, Any]]) -> None:
    """Write a checkpoint of named arrays, as many in memory at once as copying takes."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    written: List[str] = []
    group: List[Tuple[str, Any]] = []

    def flush() -> None:
        written.append(f"{target}_part{len(written)}")
        _save(written[-1], group)

    for name, value in values:
        if group and sum(one.nbytes for _, one in group) + value.nbytes > GROUP_BYTES:
            flush()
            group = []
        group.append((name, value))
    if group:
        flush()
    merge(written, target)


def _save(prefix: str, values: Sequence[Tuple[str, Any]]) -> None:
    with tf.Graph().as_default(), tf.Session(config=_CPU_ONLY) as session:
        tensors = [tf.placeholder(tf.as_dtype(value.dtype)) for _, value in values]
        save = tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=[name for name, _ in values],
            shape_and_slices=[""] * len(values),
            tensors=tensors,
        )
        session.run(save, dict(zip(tensors, [value for _, value in values])))


def merge(prefixes: List[str], target: str) -> None:
    """Make one checkpoint of several; their data files are renamed, not copied."""
    if not prefixes:
        return
    with tf.Graph().as_default(), tf.Session(config=_CPU_ONLY) as session:
        merge = tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes, destination_prefix=target, delete_old_dirs=False
        )
        session.run(merge)
