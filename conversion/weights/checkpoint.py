"""Checkpoints: found, their files named, their variables listed without reading values."""

from __future__ import annotations

import glob
import os
import re
from typing import Any, List, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.weights.slices import stored_slices
from conversion.weights.specs import VariableSpec

# The last 8 bytes of a table file (tensorflow/core/lib/io/format.h): a V1 checkpoint is one.
_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
_DATA_FILE = re.compile(r"\.data-\d{5}-of-(\d{5})$")


def find_checkpoint(path: str) -> Optional[str]:
    """The checkpoint prefix that a path means: a prefix, one of its files, or a folder.

    Of a folder's checkpoints the one with the highest step is taken, then the newest; its
    `checkpoint` file is not asked, because it holds absolute paths of the machine that trained.
    A checkpoint of the V1 format (no .index) is one file that is called as its prefix.
    """
    if os.path.isdir(path):
        inside = glob.glob(os.path.join(glob.escape(path), "*"))
        found = [name[: -len(".index")] for name in inside if name.endswith(".index")]
        return max(found or [name for name in inside if _is_v1(name)], key=_age, default=None)
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path)
    return prefix if os.path.isfile(prefix + ".index") or _is_v1(prefix) else None


def _is_v1(path: str) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) < len(_TABLE_MAGIC):
        return False
    with open(path, "rb") as file:
        file.seek(-len(_TABLE_MAGIC), os.SEEK_END)
        return file.read() == _TABLE_MAGIC


def _age(prefix: str) -> Tuple[int, float]:
    step = re.search(r"-(\d+)$", prefix)
    return int(step.group(1)) if step else -1, os.path.getmtime(checkpoint_files(prefix)[0])


def checkpoint_files(prefix: str) -> List[str]:
    """The index and the data files of a checkpoint."""
    if not os.path.isfile(prefix + ".index"):
        return [prefix]
    return [prefix + ".index"] + _data_files(prefix)


def _data_files(prefix: str) -> List[str]:
    found = glob.glob(glob.escape(prefix) + ".data-*")
    return sorted(name for name in found if _DATA_FILE.search(name))


def require_files(prefix: str) -> None:
    """Look whether every data file is there, before any work.

    Raises:
        InputError: with the names of those that are not.
    """
    if not os.path.isfile(prefix + ".index"):
        return
    found = _data_files(prefix)
    counts = sorted({_DATA_FILE.search(name).group(1) for name in found}) or ["00001"]  # type: ignore[union-attr]
    complete = [
        [f"{prefix}.data-{index:05d}-of-{count}" for index in range(int(count))] for count in counts
    ]
    missing = [name for names in complete for name in names if name not in found]
    if missing and not any(set(names) <= set(found) for names in complete):
        raise InputError(
            f"checkpoint {prefix} is not whole: {prefix}.index is there, missing are\n  "
            + "\n  ".join(missing)
            + "\nCopy these files beside it."
        )


def read_specs(prefix: str) -> Tuple[VariableSpec, ...]:
    """Name, dtype, shape and slices of every variable, without reading values.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    reader = open_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    v2 = os.path.isfile(prefix + ".index")
    slices = stored_slices(_listing(reader), shapes) if v2 else {}
    return tuple(
        VariableSpec(name, dtypes[name].name, tuple(shapes[name]), slices.get(name, ()))
        for name in sorted(shapes)
    )


def open_checkpoint(prefix: str) -> Any:
    """A reader of the checkpoint's entries, one at a time.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return tf.train.NewCheckpointReader(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot read checkpoint {prefix}: expected {prefix}.index and its data files: {error}"
        ) from error


def _listing(reader: Any) -> bytes:
    listing = reader.debug_string()
    return listing if isinstance(listing, bytes) else listing.encode("utf-8", "surrogateescape")
