"""A model -> the artifact that its training leaves -> the bundle of jobs/convert.py.

    python -m benchmarks.bundles MODEL FOLDER      the artifact alone, in a process of its own

A model for TPUs comes as a tpu.rewrite MetaGraph with a checkpoint, one whose ops run on the
host as a SavedModel. Weights are seeded noise of a trained model's size, moved batch statistics
included: folding them is then as hard as with trained ones.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from typing import Any, Callable, Iterable

import numpy as np

from benchmarks.workloads import SEED, WORKLOADS, Workload

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NO_OPTIMIZE = "--no-optimize"
REFERENCE_ROWS = 64


def can_optimize() -> bool:
    """Whether this checkout's convert.py has the optimisation to leave out."""
    command = [sys.executable, os.path.join(ROOT, "jobs", "convert.py"), "--help"]
    return NO_OPTIMIZE in subprocess.check_output(command).decode()


def make_bundles(folder: str, workload: Workload, kinds: Iterable[str]) -> dict[str, str]:
    """The bundle as the graph came (`plain`), and the `optimized` one where convert.py can."""
    artifact = os.path.join(folder, f"artifact-{workload.model}")
    if not os.path.isdir(artifact):
        making = artifact + ".making"
        shutil.rmtree(making, ignore_errors=True)
        _run([sys.executable, "-m", "benchmarks.bundles", workload.name, making])
        os.rename(making, artifact)
    flags = {"plain": [NO_OPTIMIZE], "optimized": []} if can_optimize() else {"plain": []}
    bundle = os.path.join(folder, f"bundle-{workload.model}-{_digest_of_converter()}")
    return {
        kind: _convert(artifact, f"{bundle}-{kind}", workload, *flags[kind])
        for kind in flags
        if kind in kinds or len(flags) == 1
    }


def _digest_of_converter() -> str:
    """Eight digits that change with conversion's code, so that no stale bundle is measured."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(os.path.join(ROOT, "conversion"))):
        for name in sorted(name for name in names if name.endswith(".py")):
            with open(os.path.join(folder, name), "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()[:8]


def _convert(artifact: str, bundle: str, workload: Workload, *flags: str) -> str:
    if not os.path.isdir(bundle):
        source = [artifact]
        if workload.on_tpu:
            source = [os.path.join(artifact, "model.meta")]
            source += ["--input", "x=x:0", "--output", "probabilities=output_0_shard_0:0"]
        else:  # texts that the ops take cannot be made up
            source += ["--reference", _reference(f"{artifact}.npz", workload)]
        command = [sys.executable, os.path.join(ROOT, "jobs", "convert.py"), *source]
        _run([*command, "--target", "cpu", "--out", bundle, *flags])
    return bundle


def _reference(path: str, workload: Workload) -> str:
    """A file of inputs as the workload has them; the source itself computes their outputs."""
    if not os.path.exists(path):
        values = workload.values(REFERENCE_ROWS, np.random.RandomState(SEED)).to_pylist()
        sizes = np.array([len(value) for value in values])  # an npz drops NUL bytes at the end
        np.savez(path, **{"inputs/x": np.array(values), "sizes/inputs/x": sizes})
    return path


def _run(command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": ROOT}
    run = subprocess.run(command, env=environment, capture_output=True)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stderr.decode()[-3000:]}")


def write_artifact(workload: Workload, folder: str) -> None:
    """A MetaGraph of tpu.rewrite and its checkpoint, or a SavedModel."""
    from batchinfer.tf1 import tf
    from benchmarks import models

    build: Callable[[Any], Any] = getattr(models, workload.model)
    dtype = tf.as_dtype(workload.dtype)
    os.makedirs(os.path.dirname(folder) or ".", exist_ok=True)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(dtype, [None, *workload.row_shape], name="x")
        with tf.variable_scope("", use_resource=True):
            y = build(x)
        _fill(session)
        if not workload.on_tpu:
            tf.saved_model.simple_save(session, folder, {"x": x}, {"probabilities": y})
            return
        os.makedirs(folder)
        prefix = os.path.join(folder, "model")
        tf.train.Saver().save(session, prefix, write_meta_graph=False)
    with tf.Graph().as_default():
        x = tf.placeholder(dtype, [None, *workload.row_shape], name="x")
        with tf.variable_scope("", use_resource=True):
            tf.tpu.rewrite(lambda batch: [build(batch)], [x])
        tf.train.Saver()
        tf.train.export_meta_graph(prefix + ".meta", clear_devices=False)


def _fill(session: Any) -> None:
    """Seeded values: matrices as He's initialisation has them, scales and variances about 1."""
    from batchinfer.tf1 import tf

    random = np.random.RandomState(SEED)
    for variable in tf.global_variables():
        shape = variable.shape.as_list()
        values = random.standard_normal(shape)
        if len(shape) > 1:
            values *= np.sqrt(2 / np.prod(shape[:-1]))
        elif variable.op.name.endswith(("gamma", "moving_variance")):
            values = 1 + 0.2 * np.abs(values)
        else:
            values *= 0.1
        variable.load(values.astype(np.float32), session)


if __name__ == "__main__":
    write_artifact(WORKLOADS[sys.argv[1]], sys.argv[2])
