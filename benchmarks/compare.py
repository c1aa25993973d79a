"""A system's predictions against raw's, key by key.

python -m benchmarks.compare OUTPUT EXPECTED.npz     prints the largest difference
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from batchinfer.arrow import pq
from benchmarks.output import count_rows, parts
from benchmarks.systems.arrays import allow_tensor_type
from benchmarks.task import KEY, OUTPUT


def max_absdiff(out: str, expected: str) -> float:
    """The largest difference of any float from raw's prediction of the same key.

    Raises:
        ValueError: a key that raw does not know, or one that is missing.
    """
    with np.load(expected) as arrays:
        keys, predictions = arrays[KEY], arrays[OUTPUT]
    by_key = np.empty_like(predictions)
    by_key[keys] = predictions  # keys are 0, 1, ... of the distinct rows
    seen, largest = np.zeros(len(keys), dtype=np.int64), 0.0
    for path in parts(out):
        table = pq.ParquetFile(path).read(columns=[KEY, OUTPUT], use_threads=False)
        found = table.column(KEY).to_numpy()
        values = _floats(table.column(OUTPUT), predictions.shape[1])
        if found.min() < 0 or found.max() >= len(keys):
            span = f"{found.min()} to {found.max()}"
            raise ValueError(f"{path}: expected keys 0 to {len(keys) - 1}; found {span}")
        seen += np.bincount(found, minlength=len(keys))
        largest = max(largest, float(np.abs(values - by_key[found]).max()))
    if seen.min() != seen.max():
        raise ValueError(f"a key was written {seen.min()} times, another {seen.max()} times")
    return largest


def _floats(column: Any, width: int) -> np.ndarray:
    lists = [getattr(chunk, "storage", chunk) for chunk in column.chunks]  # of Ray's tensor type
    flat = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists]
    return np.concatenate(flat).reshape(-1, width)


if __name__ == "__main__":
    allow_tensor_type()
    seen = {"rows": count_rows(sys.argv[1])}
    if len(sys.argv) > 2:
        seen["max_absdiff"] = max_absdiff(sys.argv[1], sys.argv[2])
    print(json.dumps(seen), flush=True)
