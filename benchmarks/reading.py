"""What it costs to read rows into arrays: batchinfer's reader beside pyarrow, layout by layout.

    .venv/bin/python benchmarks/reading.py [--rounds 7] [--default-memory]

One file of each layout, written by pyarrow's defaults, is read in turn by

batchinfer    `ShardReader` and `rebatch`: projection, checks of every row, arrays of one batch
iter_batches  `pq.ParquetFile.iter_batches` alone, without a check, into nothing
read_table    `pq.read_table`, the whole file at once, into nothing

All of them with the memory settings of an actor (batchinfer/memory.py), unless told otherwise.
CPU is `time.process_time`, the median of the rounds, in us a row; `GB/s` is batchinfer's, of the
model's input.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from typing import Any, Callable

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.batch import rebatch
from batchinfer.memory import keep_freed_memory
from batchinfer.outputs import Outputs
from batchinfer.plan import Segment, Shard
from batchinfer.schema import Columns
from batchinfer.shard_reader import ShardReader
from batchinfer.signature import Signature, TensorSpec
from batchinfer.storage import open_store

BATCH_ROWS = 2048


def lists(values: np.ndarray) -> pa.Array:
    offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))


def fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def binary(values: np.ndarray) -> pa.Array:
    return pa.array([row.tobytes() for row in values], pa.binary())


def layouts() -> dict[str, tuple[TensorSpec, pa.Array]]:
    """Name -> the model's input and the column."""
    random = np.random.RandomState(0)
    floats = random.standard_normal((200_000, 64)).astype(np.float32)
    noise = random.randint(0, 256, (2000, 12_288)).astype(np.uint8)
    smooth = (np.add.outer(np.arange(2000), np.arange(12_288)) // 40 % 256).astype(np.uint8)
    tokens = np.minimum(random.zipf(1.3, (50_000, 128)), 30_000).astype(np.int32)
    tokens[np.arange(128) >= random.randint(20, 129, (50_000, 1))] = 0  # padded
    x64, image = ("float32", 64), ("uint8", 12_288)
    found = {
        "list<float32>[64]": (x64, lists(floats)),
        "fixed_size_list<float32>[64]": (x64, fixed(floats)),
        "binary of float32[64]": (x64, binary(floats)),
        "list<uint8>[12288], noise": (image, lists(noise)),
        "list<uint8>[12288], smooth": (image, lists(smooth)),
        "binary of uint8[12288], noise": (image, binary(noise)),
        "list<int32>[128], padded tokens": (("int32", 128), lists(tokens)),
    }
    return {
        name: (TensorSpec("x", "x:0", dtype, (None, width)), column)
        for name, ((dtype, width), column) in found.items()
    }


def reader(path: str, spec: TensorSpec, rows: int) -> Callable[[], None]:
    store, _ = open_store(path)
    info = store.info(path)
    groups = pq.read_metadata(path).num_row_groups
    shard = Shard(0, (Segment(path, info.size, info.version, 0, groups, 0, rows),))
    outputs = (TensorSpec("y", "y:0", "float32", (None,)),)
    columns = Columns(Signature((spec,), outputs), {"x": "x"}, pa.schema([]), Outputs(outputs))

    def read() -> None:
        batches = rebatch(ShardReader(shard, columns, lambda url: (store, url)), BATCH_ROWS)
        assert sum(batch.num_rows for batch in batches) == rows

    return read


def measure(path: str, spec: TensorSpec, rows: int, rounds: int) -> dict[str, float]:
    """Median us of CPU a row, by way."""
    ways: dict[str, Callable[[], Any]] = {
        "batchinfer": reader(path, spec, rows),
        "iter_batches": lambda: [
            batch.num_rows for batch in pq.ParquetFile(path).iter_batches(use_threads=False)
        ],
        "read_table": lambda: pq.ParquetFile(path).read(use_threads=False).num_rows,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, run in ways.items():
            began = time.process_time()
            run()
            found[name].append((time.process_time() - began) / rows * 1e6)
    return {name: statistics.median(times[1:]) for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--default-memory", action="store_true")
    flags = parser.parse_args()
    if not flags.default_memory:
        keep_freed_memory()
    print("| column | batchinfer | iter_batches | read_table | GB/s |\n|---|---|---|---|---|")
    for name, (spec, column) in layouts().items():
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "x.parquet")
            pq.write_table(pa.table({"x": column}), path)
            found = measure(path, spec, len(column), flags.rounds)
        row_bytes = spec.num_values * spec.numpy_dtype.itemsize
        cells = " | ".join(f"{us:.3g}" for us in found.values())
        print(f"| {name} | {cells} | {row_bytes / found['batchinfer'] / 1e3:.2f} |", flush=True)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # pyarrow 12 can hang at exit
