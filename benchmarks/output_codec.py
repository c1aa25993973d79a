"""How predictions are best packed: CPU per row and bytes per row of each codec and dictionary.

    .venv/bin/python benchmarks/output_codec.py [--rows 65536] [--rounds 5]

One row group of each kind of prediction is written into memory with the settings of
`batchinfer.prediction_writer`, all variants in turn, round after round; the median counts.
CPU is `time.process_time` of the write, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import time

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np

from batchinfer.arrow import pa, pq

CODECS = (("none", None), ("snappy", None), ("zstd", 1), ("zstd", 3))


def probabilities(rows: int, classes: int, sharpness: float) -> np.ndarray:
    """Softmax of seeded normal logits, float32 of shape (rows, classes)."""
    logits = np.random.RandomState(0).standard_normal((rows, classes)) * sharpness
    exact = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exact / exact.sum(axis=1, keepdims=True)).astype(np.float32)


def floats(array: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])


def tables(rows: int) -> dict[str, pa.Table]:
    """The kinds of predictions that are measured, by name."""
    wide = probabilities(rows // 8, 1000, 3.0)
    best = np.argsort(-wide, axis=1)[:, :5]
    few = rows // 8
    labels = pa.array([f"class number {i}" for i in range(1000)])
    return {
        "float[10]": pa.table({"y": floats(probabilities(rows, 10, 1.0))}),
        "float[10], sharp": pa.table({"y": floats(probabilities(rows, 10, 20.0))}),
        "float[1000]": pa.table({"y": floats(wide)}),
        "embedding float[128]": pa.table(
            {"y": floats(np.random.RandomState(1).standard_normal((few, 128)).astype(np.float32))}
        ),
        "score float": pa.table({"y": probabilities(rows, 2, 1.0)[:, 0]}),
        "key int64 in order": pa.table({"id": np.arange(rows)}),
        "argmax int32": pa.table({"y": best[:, 0].astype(np.int32)}),
        "top5 index, value": pa.table(
            {
                "index": floats(best.astype(np.int32)),
                "value": floats(np.take_along_axis(wide, best, axis=1)),
            }
        ),
        "top5 label": pa.table(
            {"y": pa.FixedSizeListArray.from_arrays(labels.take(pa.array(best.reshape(-1))), 5)}
        ),
    }


def written(table: pa.Table, codec: str, level: int | None, dictionary: bool) -> tuple[float, int]:
    """CPU seconds and bytes of one object."""
    sink = pa.BufferOutputStream()
    before = time.process_time()
    writer = pq.ParquetWriter(
        sink,
        table.schema,
        use_dictionary=dictionary,
        compression=codec,
        compression_level=level,
        version="2.6",
    )
    writer.write_table(table, row_group_size=table.num_rows)
    writer.close()
    return time.process_time() - before, sink.tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    variants = list(itertools.product(CODECS, (False, True)))
    print(
        f"pyarrow {pa.__version__}, {flags.rows} rows, median of {flags.rounds}; us and bytes a row"
    )
    for name, table in tables(flags.rows).items():
        found: dict = {variant: [] for variant in variants}
        for _ in range(flags.rounds):
            for variant in variants:
                found[variant].append(written(table, *variant[0], variant[1]))
        for (codec, level), dictionary in variants:
            runs = found[(codec, level), dictionary]
            cpu = statistics.median(seconds for seconds, _ in runs) / table.num_rows * 1e6
            size = runs[0][1] / table.num_rows
            label = f"{codec}{level or ''}{' + dictionary' if dictionary else ''}"
            print(f"{name:22} {label:20} {cpu:8.3f} us {size:8.1f} B", flush=True)


if __name__ == "__main__":
    main()
