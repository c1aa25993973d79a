#!/usr/bin/env python3
"""What a better graph and TensorFlow's own options are worth: CPU microseconds per row.

    python benchmarks/graph_options.py --rounds 5

The model of each workload is converted with and without optimisation, and scored by two
concurrent session.run calls with intra_op 1. The variants are sessions of one process, which take
turns, so that a busy machine is as busy for each. `ratio` is the median of the rounds' ratios to
the first variant, `moved` the largest difference to its outputs, `first_s` the CPU seconds of the
first run.

plain, optimized   the bundle as `jobs/convert.py` writes it with --no-optimize, and without
frozen             variables made constants in memory, up to 64 MB (benchmarks/frozen.py)
xla                global_jit_level ON_2; TF_XLA_FLAGS=--tf_xla_cpu_global_jit is set for all
aggressive         Grappler's rewriters at AGGRESSIVE;  no-grappler: none of them
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

VARIANTS = (
    "plain",
    "plain+frozen",
    "plain+xla",
    "optimized",
    "optimized+frozen",
    "optimized+frozen+aggressive",
    "optimized+frozen+xla",
    "plain+no-grappler",
)
BATCH_ROWS = {"tabular": 4096, "image": 64, "text": 16}
RUNS = {"tabular": 60, "image": 4, "text": 6}  # batches in a round


def _config(tf: Any, options: set[str]) -> Any:
    config = tf.ConfigProto(intra_op_parallelism_threads=1)
    graph = config.graph_options
    if "xla" in options:
        graph.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_2
    if "no-grappler" in options:
        graph.rewrite_options.disable_meta_optimizer = True
    if "aggressive" in options:
        for name in ("arithmetic_optimization", "constant_folding", "remapping"):
            setattr(graph.rewrite_options, name, 3)  # RewriterConfig.AGGRESSIVE
    return config


def _loaded(tf: Any, bundle: str, config: Any, frozen: bool) -> Any:
    """The model as a function of one batch."""
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        meta_graph = tf.saved_model.loader.load(session, [tf.saved_model.SERVING], bundle)
    signature = meta_graph.signature_def["serving_default"]
    fed, fetched = signature.inputs["x"].name, signature.outputs["probabilities"].name
    if frozen:
        from benchmarks.frozen import freeze

        fetched = freeze(session, [fetched])[0]
    return session.make_callable(fetched, feed_list=[fed])


def rows(model: str, count: int) -> Any:
    """Seeded inputs."""
    random = np.random.RandomState(3)
    if model == "tabular":
        return random.standard_normal([count, 64]).astype(np.float32)
    if model == "image":
        return random.randint(0, 256, [count, 64, 64, 3]).astype(np.uint8)
    return random.randint(0, 8192, [count, 128]).astype(np.int32)


def compare(model: str, folder: str, variants: list[str], rounds: int) -> None:
    """Convert one model, run its variants in turn, print a line for each."""
    from batchinfer.tf1 import tf
    from benchmarks.bundles import make_bundles
    from benchmarks.workloads import WORKLOADS

    bundles = make_bundles(folder, WORKLOADS[model], ("plain", "optimized"))
    x = rows(model, BATCH_ROWS[model])
    runs, firsts, outputs = {}, {}, {}
    for variant in variants:
        kind, *options = variant.split("+")
        runs[variant] = _loaded(tf, bundles[kind], _config(tf, set(options)), "frozen" in options)
        began = time.process_time()
        outputs[variant] = runs[variant](x)
        firsts[variant] = time.process_time() - began
        runs[variant](x)
    found = {variant: [] for variant in variants}
    for _ in range(rounds):
        for variant in variants:
            found[variant].append(_microseconds(runs[variant], x, RUNS[model]))
    for variant in variants:
        ratios = [mine / one for mine, one in zip(found[variant], found[variants[0]])]
        line = {
            "model": model,
            "variant": variant,
            "us_per_row": round(statistics.median(found[variant]), 3),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
            "first_s": round(firsts[variant], 2),
            "moved": float(np.max(np.abs(outputs[variant] - outputs[variants[0]]))),
        }
        print(json.dumps(line), flush=True)


def _microseconds(run: Any, x: Any, count: int) -> float:
    began = time.process_time()
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: run(x), range(count)):
            pass
    return (time.process_time() - began) / (count * len(x)) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="tabular,image,text")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    for model in flags.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            compare(model, folder, flags.variants.split(","), flags.rounds)


if __name__ == "__main__":
    main()
