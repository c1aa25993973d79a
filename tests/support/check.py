"""An independent look at an output folder: plain pyarrow, no import of batchinfer."""

from __future__ import annotations

import glob
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

try:  # pyarrow 12 needs it before it opens a file; newer ones do not have it
    import pyarrow_hotfix  # noqa: F401
except ImportError:
    assert int(pa.__version__.split(".")[0]) >= 15


def read_parts(folder: str) -> pa.Table:
    """All predictions in the order of the parts' names."""
    names = sorted(glob.glob(os.path.join(glob.escape(folder), "part-*.parquet")))
    return pa.concat_tables([pq.ParquetFile(name).read(use_threads=False) for name in names])


def snapshot(folder: str) -> dict:
    """Inode, size and time of change of every part: equal as long as no part was touched."""
    names = glob.glob(os.path.join(glob.escape(folder), "part-*.parquet"))
    stats = {os.path.basename(name): os.stat(name) for name in names}
    return {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats.items()}


def assert_exact(folder: str, ids: np.ndarray, expected: np.ndarray, atol: float = 0.0) -> None:
    """Every id once, in input order, with its own prediction; nothing else."""
    table = read_parts(folder)
    found = table.column("id").to_numpy()
    assert len(found) == len(ids), f"{len(found)} rows, expected {len(ids)}"
    assert np.array_equal(found, ids), "ids differ or are out of order"
    y = np.array(table.column("y").to_pylist())
    worst = np.abs(y - expected).max()
    assert worst <= atol, f"predictions differ by up to {worst}"
