"""Checkpoints: found, listed, and copied variable by variable under new names."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Iterable, List, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.names import Assignment, VariableSpec

_CPU_ONLY = tf.ConfigProto(device_count={"GPU": 0})
SHARD_BYTES = 256 << 20  # values held in memory at once, unless one variable is larger


def find_checkpoint(path: str) -> Optional[str]:
    """The checkpoint prefix that a path means: a prefix, one of its files, or a folder.

    Of a folder's checkpoints the one with the highest step is taken, then the newest; its
    `checkpoint` file is not asked, because it holds absolute paths of the machine that trained.
    """
    if os.path.isdir(path):
        found = [name[: -len(".index")] for name in glob.glob(os.path.join(path, "*.index"))]
        return max(found, key=_age, default=None)
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    return prefix if os.path.isfile(prefix + ".index") else None


def _age(prefix: str) -> Tuple[int, float]:
    step = re.search(r"-(\d+)$", prefix)
    return int(step.group(1)) if step else -1, os.path.getmtime(prefix + ".index")


def checkpoint_files(prefix: str) -> List[str]:
    """The index and the data files of a checkpoint."""
    data = glob.glob(glob.escape(prefix) + ".data-*")
    return [prefix + ".index"] + sorted(data)


def read_specs(prefix: str) -> Tuple[VariableSpec, ...]:
    """Name, dtype and shape of every variable, without reading values.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    reader = open_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    return tuple(
        VariableSpec(name, dtypes[name].name, tuple(shapes[name])) for name in sorted(shapes)
    )


def copy_variables(source: str, assignments: Iterable[Assignment], target: str) -> None:
    """Write the assigned variables of checkpoint `source` as checkpoint `target`.

    Raises:
        InputError: a variable cannot be read.
    """
    reader = open_checkpoint(source)
    ordered = sorted(assignments, key=lambda assignment: assignment.target)
    write_values(target, ((one.target, _read(reader, source, one)) for one in ordered))


def write_values(target: str, values: Iterable[Tuple[str, Any]]) -> None:
    """Write a checkpoint of named arrays.

    At most `SHARD_BYTES` or one variable are in memory: each group becomes a data file.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    written: List[str] = []
    group: List[Tuple[str, Any]] = []
    size = 0

    def flush() -> None:
        written.append(f"{target}_part{len(written)}")
        _save(written[-1], [name for name, _ in group], [value for _, value in group])

    for name, value in values:
        if group and size + value.nbytes > SHARD_BYTES:
            flush()
            group, size = [], 0
        group.append((name, value))
        size += value.nbytes
    if group:
        flush()
    _merge(written, target)


def open_checkpoint(prefix: str) -> Any:
    """A reader of the checkpoint's entries, one at a time.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot read checkpoint {prefix}: expected {prefix}.index and its data files: {error}"
        ) from error


def _read(reader: Any, source: str, assignment: Assignment) -> Any:
    name, wanted = assignment.source.name, assignment.variable.spec.dtype
    try:
        value = reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError) as error:
        raise InputError(f"checkpoint {source}: cannot read variable {name}: {error}") from error
    # Strings come as object arrays and stay; bfloat16 becomes the graph's float32.
    if assignment.source.dtype == wanted:
        return np.asarray(value)
    return np.asarray(value).astype(tf.as_dtype(wanted).as_numpy_dtype)


def _save(prefix: str, names: List[str], values: List[Any]) -> None:
    with tf.Graph().as_default(), tf.Session(config=_CPU_ONLY) as session:
        tensors = [tf.placeholder(tf.as_dtype(value.dtype)) for value in values]
        save = tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
        )
        session.run(save, dict(zip(tensors, values)))


def _merge(prefixes: List[str], target: str) -> None:
    """Make one checkpoint of several; their data files are renamed, not copied."""
    if not prefixes:
        return
    with tf.Graph().as_default(), tf.Session(config=_CPU_ONLY) as session:
        merge = tf.raw_ops.MergeV2Checkpoints(
            checkpoint_prefixes=prefixes, destination_prefix=target, delete_old_dirs=False
        )
        session.run(merge)
