"""Products of a bfloat16 with a float32 matrix, as tf.matmul writes them."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.surgery import operate

A, B = np.float32([[1, 2, 3], [4, 5, 6]]), np.float32([[1, 0], [0, 1], [2, 2]])


# [1 + 6, 2 + 6] and [4 + 12, 5 + 12], however the sides lie
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("rounded", ["a", "b"])
def test_a_product_of_mixed_precision_is_a_dense_product(transpose_a, transpose_b, rounded):
    given = {"a": A.T if transpose_a else A, "b": B.T if transpose_b else B}
    with tf.Graph().as_default() as graph:
        fed = {name: tf.placeholder(tf.float32, [None, None], name=name) for name in given}
        used = {**fed, rounded: tf.cast(fed[rounded], tf.bfloat16)}
        made = tf.matmul(used["a"], used["b"], transpose_a, transpose_b)
        assert made.op.type == "SparseMatMul"  # or there would be nothing to do
        tf.identity(made, name="y")
    found, _ = operate(graph.as_graph_def(), ["y"])
    assert "SparseMatMul" not in {node.op for node in found.node}
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(found, name="")
        y = session.run("y:0", {name + ":0": array for name, array in given.items()})
    assert y.tolist() == [[7.0, 8.0], [16.0, 17.0]]
