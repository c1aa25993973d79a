"""Ops that TF 1.15 has only behind tf.contrib, and ops that nobody has."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import UnsupportedOpsError
from batchinfer.tf1 import tf
from conversion.graphs.tensors import imported
from tests.conversion.graphs import graph, node

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def save_spatial_transformer(folder):
    """A MetaGraph, a checkpoint, and the reference: an image moved by one pixel, times w."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorflow.contrib import image

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 2, 2, 1], name="x")
        w = tf.get_variable("w", initializer=2.0, use_resource=True)
        tf.identity(image.translate(x, [1.0, 0.0]) * w, name="out")
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(folder, "m.ckpt"))
    fed = np.arange(4, dtype=np.float32).reshape(1, 2, 2, 1)
    moved = np.reshape([0, 0, 0, 4], [1, 2, 2, 1]).astype(np.float32)
    np.savez(os.path.join(folder, "r.npz"), **{"inputs/x": fed, "outputs/y": moved})


def test_a_model_with_an_op_of_tf_contrib_converts_in_a_process_that_never_imported_it(tmp_path):
    folder = str(tmp_path)
    save_spatial_transformer(folder)
    command = f"{sys.executable} jobs/convert.py {folder}/m.ckpt.meta --input x=x --output y=out"
    command += f" --reference {folder}/r.npz --out {folder}/bundle"
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    manifest = Bundle.open(folder + "/bundle").manifest
    assert manifest["contrib_ops"] == ["ImageProjectiveTransformV2"]
    assert manifest["parity"]["passed"]


def test_ops_that_nobody_knows_are_listed_with_their_numbers():
    made = graph(node("a", "MyOp"), node("b", "MyOp"), node("c", "Other"), node("d", "NoOp"))
    with pytest.raises(UnsupportedOpsError, match=r"not know 2 op\(s\) of m: MyOp x2, Other x1"):
        imported(made, "m")
