#!/usr/bin/env python3
"""Convert a model with one large table: peak memory and seconds, beside copying its checkpoint.

    python benchmarks/checkpoint_copy.py --total-mb 1000 --table-mb 600

The checkpoint is random and seeded. `convert_s` is the whole command, in a process of its own:
start, graph, digest of the source, copy, digests of the bundle, sync. `start_s` is the same of a
model of 1 MB, and `copy_s` a copy of the checkpoint's files with fsync. All are run `--repeats`
times, in turn, and the fastest of each is taken. `ratio` is (convert_s - start_s) / copy_s.
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import argparse
import json
import resource
import shutil
import subprocess
import tempfile
import time

from batchinfer.tf1 import tf

MB = 1_000_000
COLUMNS = 100  # float32 columns: 400 bytes a row
OTHERS = 10  # variables beside the table


def make(folder: str, total_mb: int, table_mb: int, seed: int) -> str:
    """Write the checkpoint and the .meta of y = table[ids] + the first rows of the others."""
    rows = [table_mb * MB // (4 * COLUMNS)]
    rows += [max(1, (total_mb - table_mb) * MB // (4 * COLUMNS * OTHERS))] * OTHERS
    names = ["table"] + [f"other_{index}" for index in range(OTHERS)]
    prefix = os.path.join(folder, "model.ckpt-1")
    with tf.Graph().as_default(), tf.Session() as session:
        values = [
            tf.random_uniform([count, COLUMNS], seed=seed + i) for i, count in enumerate(rows)
        ]
        session.run(
            tf.raw_ops.SaveV2(
                prefix=prefix,
                tensor_names=names,
                shape_and_slices=[""] * len(names),
                tensors=values,
            )
        )
    with tf.Graph().as_default():
        ids = tf.placeholder(tf.int32, [None], name="ids")
        with tf.variable_scope("", use_resource=True):
            variables = [
                tf.get_variable(name, [count, COLUMNS]) for name, count in zip(names, rows)
            ]
        found = [tf.gather(one, ids % count) for one, count in zip(variables, rows)]
        tf.add_n(found, name="y")
        tf.train.Saver()
        tf.train.export_meta_graph(prefix + ".meta")
    return prefix


def copy_seconds(prefix: str, folder: str) -> float:
    os.makedirs(folder)
    began = time.perf_counter()
    for end in (".index", ".data-00000-of-00001"):
        target = os.path.join(folder, os.path.basename(prefix + end))
        shutil.copyfile(prefix + end, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds


def convert_seconds(prefix: str, out: str) -> float:
    command = [sys.executable, os.path.join(ROOT, "jobs", "convert.py"), prefix + ".meta"]
    command += ["--input", "ids=ids:0", "--output", "y=y:0", "--out", out]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # TensorFlow is compiled only once
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    os.sync()
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-mb", type=int, default=1000)
    parser.add_argument("--table-mb", type=int, default=600)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write; default: the system's temporary folder")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        prefix = make(folder, flags.total_mb, flags.table_mb, flags.seed)
        os.makedirs(os.path.join(folder, "small"))
        small = make(os.path.join(folder, "small"), 1, 1, flags.seed)
        os.sync()
        copies, conversions, starts = [], [], []
        for _ in range(flags.repeats):
            starts.append(convert_seconds(small, os.path.join(folder, "bundle")))
            copies.append(copy_seconds(prefix, os.path.join(folder, "copy")))
            conversions.append(convert_seconds(prefix, os.path.join(folder, "bundle")))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MB
    limit_mb = 1.5 * flags.table_mb + 500
    result = {
        "total_mb": flags.total_mb,
        "table_mb": flags.table_mb,
        "peak_rss_mb": round(peak_mb),
        "limit_mb": round(limit_mb),
        "convert_s": round(min(conversions), 2),
        "start_s": round(min(starts), 2),
        "copy_s": round(min(copies), 2),
        "ratio": round((min(conversions) - min(starts)) / min(copies), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
