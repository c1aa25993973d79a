"""What a system left in its output folder."""

from __future__ import annotations

import os

from batchinfer.arrow import pq


def parts(folder: str) -> list[str]:
    """The Parquet files of an output, in order."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.endswith(".parquet")]


def count_rows(folder: str) -> int:
    """Rows of all of them, by their footers."""
    return sum(pq.read_metadata(path).num_rows for path in parts(folder))
