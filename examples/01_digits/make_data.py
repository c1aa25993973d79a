"""Writes the Parquet to score, held-out digits: python examples/01_digits/make_data.py

The columns of each file:
    id      int64        0 to rows - 1, once each
    label   int8         the digit that was written
    pixels  list<uint8>  64 values 0 to 16, row by row
"""

from __future__ import annotations

import argparse
import os
import shutil

import digits
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([("id", pa.int64()), ("label", pa.int8()), ("pixels", pa.list_(pa.uint8()))])
ROW_GROUPS = 4  # of each file
SEED = 20


def write(folder, rows, files):
    """`files` Parquet files with `rows` rows in all; the same arguments give the same tables."""
    os.makedirs(folder)
    _, held_out = digits.load()
    picks = np.random.RandomState(SEED).randint(len(held_out.labels), size=rows)
    bounds = np.linspace(0, rows, files + 1).astype(int)
    for number, (start, stop) in enumerate(zip(bounds, bounds[1:])):
        table = _table(held_out, picks[start:stop], first_id=start)
        path = os.path.join(folder, f"digits-{number:05d}.parquet")
        pq.write_table(table, path, row_group_size=max(1, -(-(stop - start) // ROW_GROUPS)))


def _table(part, picks, first_id):
    pixels = part.images[picks].reshape(len(picks), -1)
    offsets = np.arange(len(picks) + 1, dtype=np.int32) * pixels.shape[1]
    columns = [
        pa.array(np.arange(first_id, first_id + len(picks))),
        pa.array(part.labels[picks].astype(np.int8)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(pixels.ravel())),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default="build/demo", help="everything is written below it")
    parser.add_argument("--rows", type=int, default=100000, help="rows in all (default: 100000)")
    parser.add_argument("--files", type=int, default=20, help="number of files (default: 20)")
    flags = parser.parse_args(argv)

    folder = os.path.join(flags.dir, "data")
    shutil.rmtree(folder, ignore_errors=True)
    write(folder, flags.rows, flags.files)
    print(f"{flags.rows} rows in {flags.files} files: {folder}")


if __name__ == "__main__":
    main()
