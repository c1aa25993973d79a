#!/usr/bin/env python3
"""Convert a model with one large table: peak memory and seconds, beside copying its checkpoint.

    python benchmarks/checkpoint_copy.py --total-mb 1000 --table-mb 600

The checkpoint is random and seeded. Each is run `--repeats` times, in turn, and the fastest taken:

copy_s     copying the checkpoint's files, with fsync
carry_s    what conversion does with the values, without the start of Python: digest of the source,
           copy variable by variable, digests of the new files, fsync. `ratio` is carry_s / copy_s,
           `carry_peak_mb` the memory of the whole process. The *_cpu_s say what is left of a
           ratio on a machine that has other work to do
convert_s  the whole command. It also proves: the model is loaded and run as the source's graph, to
           probe the batch size, and as the bundle, so that `convert_peak_mb` has the whole model
start_s    the same for a model of 1 MB
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
from concurrent.futures import ThreadPoolExecutor

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


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def copy_seconds(prefix: str, folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of cp and fsync."""
    os.makedirs(folder)
    began, cpu = time.perf_counter(), cpu_seconds()
    for end in (".index", ".data-00000-of-00001"):
        target = os.path.join(folder, os.path.basename(prefix + end))
        shutil.copyfile(prefix + end, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began, cpu_seconds() - cpu
    shutil.rmtree(folder)
    return seconds


def carry(prefix: str, out: str) -> None:
    """Copy the variables as conversion does; print seconds and peak memory."""
    from batchinfer.bundle import describe_files
    from conversion.source import open_source
    from conversion.weights.checkpoint import read_specs
    from conversion.weights.matching import assign
    from conversion.weights.names import NO_RULES
    from conversion.weights.specs import GraphVariable
    from conversion.weights.variable_copy import copy_variables

    tf.constant(0)  # loads what the first op loads
    began, cpu = time.perf_counter(), cpu_seconds()
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(open_source(prefix + ".meta").digest)
        specs = read_specs(prefix)
        mapping = assign(specs, [GraphVariable(spec, spec.name) for spec in specs], NO_RULES)
        copy_variables(prefix, mapping.assignments, os.path.join(out, "variables"))
        digest.result()
    describe_files(out)
    for name in os.listdir(out):
        with open(os.path.join(out, name), "rb+") as file:
            os.fsync(file.fileno())
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB
    print(json.dumps([time.perf_counter() - began, cpu_seconds() - cpu, peak_mb]))


def run_apart(command: list[str], out: str) -> tuple[float, float, bytes]:
    """Seconds, peak memory in MB and output of a command that writes the folder `out`."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # TensorFlow is compiled only once
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
    if status:
        raise SystemExit(f"{command} ended with status {status}")
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    return seconds, usage.ru_maxrss * 1024 / MB, text


def convert_command(prefix: str, out: str) -> list[str]:
    command = [sys.executable, os.path.join(ROOT, "jobs", "convert.py"), prefix + ".meta"]
    return command + ["--input", "ids=ids:0", "--output", "y=y:0", "--out", out]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--total-mb", type=int, default=1000)
    parser.add_argument("--table-mb", type=int, default=600)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", help="where to write; default: the system's temporary folder")
    parser.add_argument("--carry", nargs=2, metavar=("PREFIX", "OUT"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.carry:
        carry(*flags.carry)
        return
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        print(json.dumps(measure(folder, flags)))


def measure(folder: str, flags: argparse.Namespace) -> dict[str, float]:
    prefix = make(folder, flags.total_mb, flags.table_mb, flags.seed)
    os.makedirs(os.path.join(folder, "small"))
    small = make(os.path.join(folder, "small"), 1, 1, flags.seed)
    out = os.path.join(folder, "out")
    os.sync()
    copies, carries, conversions, starts = [], [], [], []
    for _ in range(flags.repeats):
        copies.append(copy_seconds(prefix, os.path.join(folder, "copy")))
        command = [sys.executable, os.path.abspath(__file__), "--carry", prefix, out]
        carries.append(json.loads(run_apart(command, out)[2]))
        conversions.append(run_apart(convert_command(prefix, out), out)[:2])
        starts.append(run_apart(convert_command(small, out), out)[0])
    carry_s, copy_s = min(seconds for seconds, _, _ in carries), min(copies)[0]
    return {
        "total_mb": flags.total_mb,
        "table_mb": flags.table_mb,
        "copy_s": round(copy_s, 2),
        "carry_s": round(carry_s, 2),
        "ratio": round(carry_s / copy_s, 2),
        "copy_cpu_s": round(min(cpu for _, cpu in copies), 2),
        "carry_cpu_s": round(min(cpu for _, cpu, _ in carries), 2),
        "carry_peak_mb": round(max(peak for _, _, peak in carries)),
        "limit_mb": round(1.5 * flags.table_mb + 500),
        "convert_s": round(min(seconds for seconds, _ in conversions), 2),
        "convert_peak_mb": round(max(peak for _, peak in conversions)),
        "start_s": round(min(starts), 2),
    }


if __name__ == "__main__":
    main()
