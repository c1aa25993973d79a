"""Batch norm into weights, what is constant computed once, identities gone; anything else stays."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import ConversionError
from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView, check
from conversion.optimize import static_values
from conversion.optimize.batch_norm import fold_batch_norm
from conversion.optimize.bias_add import bias_add
from conversion.optimize.leftovers import identities, waiting
from conversion.optimize.precompute import precompute
from conversion.optimize.static_values import Static
from conversion.surgery.sweep import sweep
from tests.conversion.graphs import run

RANDOM = np.random.RandomState(11)
X = RANDOM.randn(3, 6, 6, 4).astype(np.float32)
VERSIONS = ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"]


def weight(*shape):
    return tf.constant(RANDOM.randn(*shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1])))


def variance(channels):
    return tf.constant(RANDOM.rand(channels).astype(np.float32) + 0.1)


def built(compute, *shape, dtype=tf.float32):
    """The graph of `y = compute(x)`, behind an anchor."""
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(dtype, shape, name="x")
        tf.identity(compute(x), name="y")
        return graph.as_graph_def()


def folded(before):
    """After folding, sums, and computing ahead; and how many places were folded."""
    after, count = fold_batch_norm(GraphView(before, ["y"]))
    check(after, "fold_batch_norm")
    after, _ = bias_add(GraphView(after, ["y"]))
    after, _ = sweep(GraphView(precompute(GraphView(after, ["y"])).graph_def, ["y"]))
    check(after, "precompute")
    return after, count


def ops(graph_def):
    return sorted(node.op for node in graph_def.node if node.op not in ("Const", "Identity"))


def difference(before, after, x):
    expected, found = (run(graph, "y:0", {"x:0": x}) for graph in (before, after))
    assert found.dtype == expected.dtype and found.shape == expected.shape
    return np.max(np.abs(found - expected)) / max(1, np.max(np.abs(expected)))


def fused_norm(x, version="FusedBatchNorm", **more):
    channels = x.shape.as_list()[-1]
    arguments = {
        "scale": weight(channels),
        "offset": weight(channels),
        "mean": weight(channels),
        "variance": variance(channels),
        "is_training": False,
        "epsilon": 0.01,
        **more,
    }
    return getattr(tf.raw_ops, version)(x=x, **arguments)


def plain_norm(x):
    channels = x.shape.as_list()[-1]
    return tf.nn.batch_normalization(
        x, weight(channels), variance(channels), weight(channels), weight(channels), 0.01
    )


def conv(x):
    return tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "SAME")


def depthwise(x):
    return tf.nn.depthwise_conv2d(x, weight(3, 3, 4, 2), [1, 1, 1, 1], "VALID")


def with_bias(x):
    return tf.nn.bias_add(tf.identity(conv(x)), weight(5))


def with_sum(x):
    return weight(1, 1, 5) + conv(x)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("linear", [conv, depthwise, with_bias, with_sum])
def test_batch_norm_goes_into_the_weights_in_front_of_it(version, linear):
    before = built(lambda x: fused_norm(linear(x), version)[0], None, 6, 6, 4)
    after, count = folded(before)
    kind = "DepthwiseConv2dNative" if linear is depthwise else "Conv2D"
    assert (count, ops(after)) == (1, ["BiasAdd", kind, "Placeholder"])
    assert difference(before, after, X) < 1e-6


@pytest.mark.parametrize("linear", [conv, depthwise, with_bias, with_sum])
def test_so_does_batch_norm_that_is_written_as_products_and_sums(linear):
    before = built(lambda x: tf.nn.relu(plain_norm(linear(x))), None, 6, 6, 4)
    after, count = folded(before)
    sums = {conv: 1, depthwise: 1}.get(linear, 2)  # a bias in front stays one
    assert count == 1 and len(ops(after)) == 3 + sums and "Mul" not in ops(after)
    assert difference(before, after, X) < 1e-6


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("factor", [0.25, [0.5, 2, -1, 0, 3]], ids=["number", "vector"])
def test_factors_behind_a_product_go_into_its_weights(transpose, factor):
    def compute(x):
        kernel = weight(5, 4) if transpose else weight(4, 5)
        y = tf.matmul(x, kernel, transpose_b=transpose) + weight(5)
        return y * tf.constant(np.array(factor, np.float32))

    before = built(compute, None, 4)
    after, count = folded(before)
    assert (count, ops(after)) == (1, ["BiasAdd", "MatMul", "Placeholder"])
    assert difference(before, after, X[0, 0]) < 1e-6


def test_batch_norm_of_images_with_channels_first_is_added_with_channels_first():
    def compute(x):
        y = tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "SAME", data_format="NCHW")
        arguments = [weight(5), weight(5), weight(5), variance(5)]
        return tf.raw_ops.FusedBatchNorm(
            x=y, scale=arguments[0], offset=arguments[1], mean=arguments[2], variance=arguments[3],
            is_training=False, data_format="NCHW",
        )[0] * tf.ones([5, 1, 1])  # fmt: skip

    after, count = fold_batch_norm(GraphView(built(compute, None, 4, 6, 6), ["y"]))
    added = [node for node in after.node if node.op == "BiasAdd"]
    assert count == 1 and [node.attr["data_format"].s for node in added] == [b"NCHW"]
    kernel = {node.name: node for node in after.node}[added[0].input[0]].input[1]
    assert kernel.endswith("/folded_weights")


def shared(x):
    kernel = weight(3, 3, 4, 4)
    one, two = (fused_norm(tf.nn.conv2d(y, kernel, 1, "SAME"))[0] for y in (x, x + 1))
    return one + two


def read_twice(x):
    y = conv(x)
    return fused_norm(y)[0] + y


def statistics_read(x):
    y = fused_norm(conv(x))
    return y[0] + y[1]


def bias_of_another_axis(x):
    y = tf.nn.conv2d(x, weight(3, 3, 4, 6), 1, "SAME")
    return tf.nn.bias_add(y, weight(6), data_format="NCHW") * weight(6)


def in_a_loop(x):
    kernel = weight(3, 3, 4, 4)
    step = lambda y: fused_norm(tf.nn.conv2d(y, kernel, 1, "SAME"))[0]  # noqa: E731
    return tf.while_loop(lambda _: True, step, [x], maximum_iterations=2)


def in_a_branch(x):
    return tf.cond(x[0, 0, 0, 0] > 0, lambda: fused_norm(conv(x))[0], lambda: conv(x))


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: fused_norm(conv(x), is_training=True, mean=[], variance=[])[0],
        lambda x: fused_norm(conv(x), is_training=True)[0],
        bias_of_another_axis,
        statistics_read,
        lambda x: fused_norm(tf.nn.relu(conv(x)))[0],
        lambda x: conv(x) * weight(6, 1),
        lambda x: conv(x) * weight(2, 1, 1, 1, 5),
        lambda x: conv(x) * tf.reduce_mean(x),
        lambda x: tf.nn.conv2d(x, tf.exp(x[0, :3, :3, :, tf.newaxis]), 1, "SAME") * weight(1),
        shared,
        read_twice,
        in_a_loop,
        in_a_branch,
    ],
    ids=["training", "training with means", "bias of another axis", "statistics read",
         "relu between", "factor of a place", "factor that enlarges",
         "computed factor", "computed weights", "shared weights", "read twice", "loop", "branch"],
)  # fmt: skip
def test_what_is_no_fixed_factor_of_weights_of_its_own_stays(compute):
    before = built(compute, None, 6, 6, 4)
    assert fold_batch_norm(GraphView(before, ["y"])) == (before, 0)


def test_a_convolution_that_is_an_output_itself_stays():
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [None, 6, 6, 4], name="x")
        y = tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "SAME", name="features")
        tf.identity(fused_norm(y)[0], name="y")
    before = graph.as_graph_def()
    assert fold_batch_norm(GraphView(before, ["y", "features"])) == (before, 0)


def test_identities_go_but_for_those_that_are_outputs_or_wait_or_lie_in_branches():
    def compute(x):
        with tf.control_dependencies([tf.abs(x)]):
            waits = tf.identity(x, name="waits")
        branch = tf.cond(tf.reduce_any(x > 0), lambda: tf.identity(x), lambda: -x)
        return tf.stop_gradient(tf.identity(tf.identity(x))) + waits + branch

    before = built(compute, None)
    after, count = identities(GraphView(before, ["y"]))
    after, _ = sweep(GraphView(after, ["y"]))
    check(after, "identities")
    assert count == 4  # and that of the predicate
    assert {node.name for node in after.node if node.op == "Identity"} >= {"waits", "y"}
    assert difference(before, after, np.array([1, 2])) == 0


def test_nothing_waits_for_a_node_without_an_effect():
    def compute(x):
        with tf.control_dependencies([tf.no_op(name="pivot")]):
            y = tf.abs(x)
        with tf.control_dependencies([tf.debugging.assert_positive(y, name="check")]):
            return tf.cond(y[0] > 0, lambda: y + 1.0, lambda: y)

    before = built(compute, None)
    after, count = waiting(GraphView(before, ["y"]))
    left = sorted({one[1:] for node in after.node for one in node.input if one[0] == "^"})
    assert count == 1 and "pivot" not in left and any("check" in one for one in left)


def variables(compute, *shape, dtype=tf.float32):
    """The graph of `y = compute(x)`, where `compute` reads resource variables."""
    return built(compute, *shape, dtype=dtype)


def computed(before):
    """Sources by shape of the values that are computed ahead."""
    found = precompute(GraphView(before, ["y"]))
    check(found.graph_def, "precompute")
    return {value.shape: sorted(value.sources) for value in found.folded}


def get(name, *shape):
    return tf.get_variable(name, shape, use_resource=True)


def test_what_depends_on_variables_alone_becomes_a_variable():
    before = variables(lambda x: tf.matmul(x, tf.transpose(get("a", 3, 2)) * get("b", 3)), None, 2)
    assert computed(before) == {(2, 3): ["a", "b"]}


def test_a_vector_that_is_repeated_for_every_row_is_computed_but_not_repeated():
    def compute(x):
        return x + tf.tile(tf.exp(get("a", 1, 500)), [64, 1])

    assert computed(variables(compute, 64, 500)) == {(1, 500): ["a"]}


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: tf.reshape(get("a", 4, 2), [2, 4]) + x,
        lambda x: tf.gather(get("a", 9, 4), tf.cast(x, tf.int32)),
        lambda x: x + tf.random_uniform([4]) * get("a", 4),
        lambda x: x + tf.reduce_sum(get("a", 9, 4), 0),
        lambda x: x + tf.reduce_mean(get("a", 9, 4)),
        lambda x: x + tf.matmul(get("a", 2, 9), get("b", 9, 4)),
        lambda x: tf.cast(tf.cast(get("a", 4), tf.int32) + tf.cast(x, tf.int32), tf.float32),
    ],
    ids=[
        "only another shape",
        "rows of a table",
        "random",
        "sum",
        "mean",
        "product",
        "whole numbers",
    ],
)
def test_what_costs_nothing_or_is_not_known_before_stays(compute):
    assert computed(variables(compute, 2, 4)) == {}


def test_a_sum_of_constants_stays():
    before = built(lambda x: x * tf.reduce_sum(tf.constant(X)), None, 4)
    assert precompute(GraphView(before, ["y"])).count == 0


def test_a_sum_of_whole_numbers_is_the_same_on_every_machine_and_is_computed():
    def compute(x):
        dims = tf.reduce_prod(tf.constant([2, 3]))
        return x * tf.reshape(tf.exp(get("a", 2, 3)), tf.reshape(dims, [1]))

    assert computed(variables(compute, 6)) == {(6,): ["a"]}


def test_a_value_as_large_as_the_memory_that_copying_takes_is_not_computed(monkeypatch):
    before = variables(
        lambda x: tf.reduce_sum(x * tf.exp(get("a", 300))) * tf.exp(get("b", 100)), 300
    )
    monkeypatch.setattr(static_values, "GROUP_BYTES", 2 * 300 * 4 - 1)
    assert computed(before) == {(100,): ["b"]}
    assert not Static(GraphView(before, ["y"])).fits(Edge("Exp", 0))


def tied(x):
    """A table that is read as it is, transposed and in multiples."""
    table = get("table", 50, 64)
    hidden = tf.gather(table, tf.cast(x[:, 0], tf.int32))
    return tf.matmul(tf.matmul(hidden, tf.transpose(table * 8.0)), table * 2.0)


def read_in_parts(x):
    parts = [get(f"part{index}", 25, 64) for index in range(2)]
    table = lambda: tf.concat([part.read_value() for part in parts], 0)  # noqa: E731
    return tf.matmul(tf.gather(table(), tf.cast(x[:, 0], tf.int32)), tf.transpose(table()))


def repeated(x):
    table = get("table", 50, 64)
    return tf.matmul(x, tf.concat([table.read_value(), table.read_value()], 1))


@pytest.mark.parametrize("compute", [tied, read_in_parts, repeated])
def test_values_that_would_make_the_bundle_larger_stay(compute):
    assert computed(variables(compute, None, 50)) == {}


def test_a_constant_in_several_shapes_stays_one_and_small_values_of_others_are_computed():
    kernel = tf.constant  # 64 x 64 float32: 16 kB

    def compute(x):
        w = kernel(np.ones([64, 64], np.float32))
        small = tf.exp(tf.constant([1.0, 2.0]))[0]
        return sum(tf.matmul(x, one) for one in (w, w * 2.0, tf.square(w), tf.abs(w))) * small

    before = built(compute, None, 64)
    after, _ = sweep(GraphView(precompute(GraphView(before, ["y"])).graph_def, ["y"]))
    assert after.ByteSize() < before.ByteSize() + 4096
    assert "Exp" not in ops(after) and "Square" in ops(after)


def test_a_variable_with_one_reader_may_be_kept_in_another_shape_alone():
    compute = lambda x: tf.matmul(x, tf.transpose(get("a", 64, 64) * 2.0))  # noqa: E731
    assert computed(variables(compute, None, 64)) == {(64, 64): ["a"]}


def test_weights_that_a_branch_reads_by_a_handle_of_its_own_are_not_folded():
    def read(name, *shape):
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=shape, shared_name=name)
        return tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)

    def compute(x):
        branch = tf.cond(x[0, 0] > 0, lambda: tf.matmul(x, read("w", 4, 4)), lambda: x)
        return tf.matmul(x, read("w", 4, 4)) * read("s", 4) + branch

    before = built(compute, None, 4)
    assert fold_batch_norm(GraphView(before, ["y"])) == (before, 0)


def test_a_new_variable_takes_no_name_under_which_another_is_shared():
    def compute(x):
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4], shared_name="twice/folded")
        other = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        return x * other + x * tf.multiply(get("a", 4), 2.0, name="twice")

    before = built(compute, None, 4)
    assert [one.target for one in precompute(GraphView(before, ["y"])).folded] == ["twice/folded_1"]


def test_a_constant_that_waits_for_another_is_a_source_all_the_same():
    def compute(x):
        with tf.control_dependencies([tf.constant([1.0, 2.0], name="first")]):
            return x * tf.exp(tf.constant([3.0, 4.0], name="second"))

    sources = Static(GraphView(built(compute, None, 2), ["y"])).sources["Exp"]
    assert sorted(sources) == [("constant", "first"), ("constant", "second")]


def test_a_long_chain_is_looked_at_once(monkeypatch):
    def compute(x):
        y = tf.tile(get("a", 4), [4000])
        for _ in range(300):
            y = y + 1.0
        return x * y

    before, _ = sweep(GraphView(built(compute, 16000), ["y"]))
    looked_at = []
    fits = Static.fits
    monkeypatch.setattr(Static, "fits", lambda *both: looked_at.append(1) or fits(*both))
    monkeypatch.setattr(Static, "cone", None)  # a walk over all that a value is computed of
    assert precompute(GraphView(before, ["y"])).folded == () and len(looked_at) < 310


def test_values_in_loops_and_branches_stay():
    def compute(x):
        step = lambda y: y + tf.exp(get("a", 4))  # noqa: E731
        looped = tf.while_loop(lambda _: True, step, [x], maximum_iterations=2)
        return tf.cond(x[0] > 0, lambda: x * tf.exp(get("b", 4)), lambda: looped)

    assert computed(variables(compute, 4)) == {}


def test_folded_weights_that_would_not_be_finite_are_refused():
    large = tf.constant
    before = built(lambda x: tf.matmul(x, large([[1e30], [1.0]])) * large(1e30), None, 2)
    after, count = fold_batch_norm(GraphView(before, ["y"]))
    with pytest.raises(ConversionError, match=r"computed ahead, .* would not be finite"):
        precompute(GraphView(after, ["y"]))
    assert count == 1
