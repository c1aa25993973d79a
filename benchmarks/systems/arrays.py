"""Parquet column <-> array with the fewest copies that pyarrow allows, as an expert writes it."""

from __future__ import annotations

import sys
from typing import Any, Iterator

import numpy as np

from batchinfer.arrow import pa, pq
from benchmarks.task import KEY, OUTPUT, Task


def allow_tensor_type() -> None:
    """Let Ray Data's column type be read: on pyarrow 12 it needs what pyarrow_hotfix forbids.

    For the benchmark's own files alone, and in processes that read nothing else.
    """
    if "pyarrow_hotfix" in sys.modules:
        sys.modules["pyarrow_hotfix"].uninstall()


def to_array(column: Any, task: Task) -> np.ndarray:
    """A list column without nulls as (n, *row_shape), a binary column as n objects."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # of no chunk, or too large for one
        return np.concatenate([to_array(chunk, task) for chunk in column.chunks])
    if task.dtype == "string":
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=True).reshape(-1, *task.row_shape)


def to_table(keys: Any, predictions: np.ndarray) -> pa.Table:
    """KEY and OUTPUT, the latter as lists of float32."""
    rows, width = predictions.shape
    flat = pa.array(np.ascontiguousarray(predictions).reshape(-1))
    offsets = pa.array(np.arange(0, rows * width + 1, width, dtype=np.int32))
    return pa.table({KEY: keys, OUTPUT: pa.ListArray.from_arrays(offsets, flat)})


def row_groups(path: str, task: Task) -> Iterator[pa.Table]:
    """The columns that are needed, a row group at a time, decoded on this thread."""
    file = pq.ParquetFile(path)
    for number in range(file.num_row_groups):
        yield file.read_row_group(number, columns=[KEY, task.column], use_threads=False)
