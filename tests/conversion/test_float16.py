"""float16 where products are computed and nothing can leave its range; float32 everywhere else."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, check
from conversion.surgery import float16 as surgery
from tests.conversion.graphs import run

RANDOM = np.random.RandomState(8)


def weight(*shape):
    return tf.constant(RANDOM.randn(*shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1])))


def built(compute, *shape, dtype=tf.float32):
    """The graph of `y = compute(x)`, behind an anchor that keeps its dtype."""
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(dtype, shape, name="x")
        tf.identity(compute(x), name="y")
        return graph.as_graph_def()


def operated(before):
    after, count = surgery.float16(GraphView(before, ["y"]))
    check(after, "float16")
    return after, count


def in_half(graph_def):
    """Ops that compute in float16, with how many of them."""
    found = sorted(
        one.op
        for one in graph_def.node
        if "T" in one.attr and one.attr["T"].type == tf.float16.as_datatype_enum
    )
    return {op: found.count(op) for op in found}


def difference(before, after, x):
    expected, found = (run(graph, "y:0", {"x:0": x}) for graph in (before, after))
    assert found.dtype == expected.dtype
    return np.max(np.abs(found - expected)) / max(1, np.max(np.abs(expected)))


def batch_norm(x, version):
    channels = x.shape.as_list()[-1]
    scale, offset, mean = (weight(channels) for _ in range(3))
    arguments = {"scale": scale, "offset": offset, "mean": mean, "variance": scale * scale + 1}
    op = getattr(tf.raw_ops, version)
    return op(x=x, is_training=False, **arguments)[0]


def residual_block(x, version="FusedBatchNorm"):
    y = tf.nn.conv2d(x, weight(3, 3, 4, 4), 1, "SAME")
    y = tf.nn.relu(batch_norm(y, version))
    z = batch_norm(tf.nn.conv2d(y, weight(3, 3, 4, 4), 1, "SAME"), version)
    return tf.nn.conv2d(tf.nn.relu(y + z), weight(1, 1, 4, 2), 1, "SAME")


@pytest.mark.parametrize("version", ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
def test_a_residual_network_stays_in_float16_from_its_first_to_its_last_convolution(version):
    before = built(lambda x: residual_block(x, version), None, 8, 8, 4)
    after, count = operated(before)
    kept = "FusedBatchNormV3" if version.endswith("3") else "FusedBatchNormV2"
    sums = {op for op in ("Add", "AddV2") if op in in_half(after)}
    assert in_half(after) == {**dict.fromkeys(sums, 1), "Conv2D": 3, "Relu": 2, kept: 2}
    assert count == 8
    statistics = [one for one in after.node if one.op == kept]
    assert {one.attr["U"].type for one in statistics} == {tf.float32.as_datatype_enum}
    assert difference(before, after, RANDOM.rand(4, 8, 8, 4)) < 2e-3


def transformer(x):
    query, key, value = (tf.tensordot(x, weight(16, 16), 1) for _ in range(3))
    scores = tf.matmul(query, key, transpose_b=True) * 0.25 + tf.constant([0, 0, -1e9])
    x += tf.tensordot(tf.matmul(tf.nn.softmax(scores), value), weight(16, 16), 1)
    mean, variance = tf.nn.moments(x, [-1], keep_dims=True)
    x = (x - mean) * tf.rsqrt(variance + 1e-6)
    hidden = tf.nn.relu(tf.tensordot(x, weight(16, 32), 1) + weight(32))
    return x + tf.tensordot(hidden, weight(32, 16), 1)


def test_a_transformer_keeps_its_residuals_masks_softmax_and_moments_in_float32():
    before = built(lambda ids: transformer(tf.gather(weight(9, 16), ids)), None, 3, dtype=tf.int32)
    after, _ = operated(before)
    found = in_half(after)
    assert found["MatMul"] == 6 and found["BatchMatMulV2"] == 2
    assert {"Softmax", "Mean", "Rsqrt", "Sub", "SquaredDifference"} & set(found) == set()
    assert found.get("AddV2", 0) + found.get("Add", 0) == 1  # the bias before the Relu
    assert difference(before, after, np.array([[0, 4, 8], [1, 1, 2]])) < 3e-3


def test_products_with_features_as_they_are_fed_stay_because_their_range_is_unknown():
    def compute(x):
        hidden = tf.matmul((x - 1) * 2, weight(3, 4))
        return tf.matmul(tf.tanh(hidden), weight(4, 2))

    after, count = operated(built(compute, None, 3))
    assert (count, in_half(after)) == (1, {"MatMul": 1})
    assert np.all(np.isfinite(run(after, "y:0", {"x:0": [[1e6, 1e7, 1e8]]})))


def test_an_image_is_clamped_to_the_range_of_float16():
    def compute(x):
        return tf.nn.conv2d(x, tf.constant(np.full([1, 1, 1, 1], 0.5, np.float32)), 1, "SAME")

    after, _ = operated(built(compute, None, 1, 2, 1))
    assert in_half(after) == {"Conv2D": 1}
    found = run(after, "y:0", {"x:0": np.reshape([255, 1e6], [1, 1, 2, 1])})
    assert found.ravel().tolist() == [127.5, 32752]  # 65504 / 2


@pytest.mark.parametrize(
    "compute, num_products",
    [
        (lambda x: tf.matmul(x, tf.constant(np.full([4, 4], 1e5, np.float32))), 0),
        (lambda x: tf.matmul(x, weight(4, 4)) + tf.constant([1e5]), 1),
        (lambda x: tf.nn.relu(tf.matmul(x, weight(4, 4)) * 1e6), 1),
        (lambda x: tf.matmul(x, weight(4, 4)) * 1e-7, 2),
        (lambda x: tf.exp(tf.matmul(x, weight(4, 4))), 2),
        (lambda x: tf.matmul(x, weight(4, 4)) + x, 2),
        (lambda x: tf.tanh(tf.matmul(x, weight(4, 4)) * 1e6) + x, 2),  # back in range
    ],
    ids=["weight", "bias", "factor", "small factor", "exp", "residual", "tanh"],
)
def test_what_can_leave_the_range_is_computed_in_float32(compute, num_products):
    """Between two products; so is the second, if what it reads may be out of range."""
    before = built(
        lambda ids: tf.matmul(compute(tf.gather(weight(9, 4), ids)), weight(4, 2)), None,
        dtype=tf.int32,
    )  # fmt: skip
    after, _ = operated(before)
    assert in_half(after) == ({"MatMul": num_products} if num_products else {})
    assert difference(before, after, np.arange(9)) < 2e-3


def test_a_loop_is_left_in_float32():
    def compute(x):
        return tf.while_loop(lambda _: True, lambda y: tf.matmul(y, weight(4, 4)), [x],
                             maximum_iterations=3)  # fmt: skip

    before = built(lambda ids: compute(tf.gather(weight(9, 4), ids)), 2, dtype=tf.int32)
    assert operated(before) == (before, 0)


def test_a_tensor_is_cast_once_for_all_its_readers():
    def compute(ids):
        x = tf.gather(weight(9, 4), ids)
        y = tf.matmul(x, weight(4, 4)), tf.matmul(x, weight(4, 4))
        return tf.exp(y[0]) + tf.exp(-y[0]) + tf.exp(y[1])

    after, _ = operated(built(compute, None, dtype=tf.int32))
    assert sum(one.op == "Cast" for one in after.node) == 5  # x, two weights, two products
