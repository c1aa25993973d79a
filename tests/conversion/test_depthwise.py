"""Dilated depthwise convolutions, against sums written out in numpy and TF's SpaceToBatchND."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, check
from conversion.surgery import dilated_depthwise as surgery
from tests.conversion.graphs import add_function, calls, const, graph, node, run

F32 = tf.float32


def depthwise(name, *inputs, **attrs):
    return node(name, "DepthwiseConv2dNative", *inputs, T=F32, **attrs)


def dilated(x, kernel, rates, stride=1, padding=b"SAME", layout=b"NHWC"):
    """x and kernel as constants, through a convolution with dilations."""
    spatial = [1, *rates, 1] if layout == b"NHWC" else [1, 1, *rates]
    strides = [1, stride, stride, 1] if layout == b"NHWC" else [1, 1, stride, stride]
    return graph(
        const("x", x),
        const("kernel", kernel),
        depthwise(
            "y", "x", "kernel",
            strides=strides, dilations=spatial, padding=padding, data_format=layout,
        ),
    )  # fmt: skip


def operated(before):
    after, count = surgery.dilated_depthwise(GraphView(before))
    check(after, "dilated_depthwise")
    return after, count


def by_hand(x, kernel, rates, stride, padding):
    """The sum over taps, as the op is documented; x is (n, h, w, c)."""
    kh, kw, channels, multiplier = kernel.shape
    extent = [(k - 1) * rate + 1 for k, rate in zip((kh, kw), rates)]
    sizes = x.shape[1:3]
    if padding == b"SAME":
        out = [-(-size // stride) for size in sizes]
        total = [max((o - 1) * stride + e - s, 0) for o, e, s in zip(out, extent, sizes)]
        x = np.pad(x, [(0, 0)] + [(t // 2, t - t // 2) for t in total] + [(0, 0)], "constant")
    else:
        out = [(size - e) // stride + 1 for size, e in zip(sizes, extent)]
    y = np.zeros((len(x), out[0], out[1], channels, multiplier), np.float64)
    for i in range(kh):
        for j in range(kw):
            rows = i * rates[0] + np.arange(out[0]) * stride
            columns = j * rates[1] + np.arange(out[1]) * stride
            y += x[:, rows][:, :, columns][..., None] * kernel[i, j]
    return y.reshape(y.shape[:3] + (-1,))


@pytest.mark.parametrize("padding", [b"SAME", b"VALID"])
@pytest.mark.parametrize(
    "rates, stride", [((2, 2), 1), ((2, 2), 2), ((3, 1), 1), ((1, 4), 2), ((3, 4), 1)]
)
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 2)])
def test_the_sum_is_the_one_over_the_spread_taps(padding, rates, stride, kernel_size):
    random = np.random.RandomState(3)
    x = random.randn(2, 11, 10, 3).astype(np.float32)
    kernel = random.randn(*kernel_size, 3, 2).astype(np.float32)
    after, count = operated(dilated(x, kernel, rates, stride, padding))
    expected = by_hand(x, kernel, rates, stride, padding)
    assert count == 1
    np.testing.assert_allclose(run(after, "y:0"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("rates", [(2, 2), (2, 3), (5, 5)])
def test_it_is_what_tensorflow_computes_by_space_to_batch(padding, rates):
    random = np.random.RandomState(4)
    x = random.randn(2, 12, 12, 4).astype(np.float32)
    kernel = random.randn(3, 3, 4, 1).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        stock = tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], padding, rate=list(rates))
        expected = session.run(stock)
    after, _ = operated(dilated(x, kernel, rates, padding=padding.encode()))
    np.testing.assert_allclose(run(after, "y:0"), expected, rtol=0, atol=1e-6)


def test_large_rates_do_not_multiply_with_thousands_of_zeros():
    """A rate of 24 would make 49 x 49 taps of 3 x 3."""
    after, _ = operated(dilated(np.ones([1, 50, 50, 1]), np.ones([3, 3, 1, 1]), (24, 24)))
    assert {"SpaceToBatchND", "BatchToSpaceND"} <= {one.op for one in after.node}
    assert run(after, "y:0").shape == (1, 50, 50, 1)


def test_the_rates_of_a_channels_first_convolution_are_its_last_two():
    before = dilated(np.ones([1, 2, 9, 9]), np.ones([3, 3, 2, 1]), (2, 3), layout=b"NCHW")
    after, count = operated(before)
    made = next(one for one in after.node if one.name == "y")
    assert count == 1
    assert made.attr["data_format"].s == b"NCHW"
    assert list(made.attr["dilations"].list.i) == [1, 1, 1, 1]
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(after, name="")
        assert imported.get_tensor_by_name(made.input[1] + ":0").shape.as_list() == [5, 7, 2, 1]


@pytest.mark.parametrize("dilations", [[1, 1, 1, 1], [2, 3, 3, 1], [1, 2, 2, 3]])
def test_without_dilations_or_with_meaningless_ones_it_stays(dilations):
    before = dilated(np.ones([1, 4, 4, 1]), np.ones([2, 2, 1, 1]), (1, 1))
    before.node[2].attr["dilations"].list.i[:] = dilations
    assert operated(before) == (before, 0)


def test_the_batch_stays_unknown_and_the_shape_known_behind_it():
    before = graph(
        node("x", "Placeholder", dtype=F32, shape=tf.AttrValue(shape=proto([None, 9, 9, 2]))),
        node("v", "VarHandleOp", dtype=F32, shape=tf.AttrValue(shape=proto([3, 3, 2, 1]))),
        node("read", "ReadVariableOp", "v", dtype=F32),
        node("kernel", "Identity", "read", T=F32),
        depthwise("y", "x", "kernel", strides=[1] * 4, dilations=[1, 2, 2, 1], padding=b"VALID"),
        node("out", "Identity", "y", T=F32),
    )
    after, _ = operated(before)
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(after, name="")
        assert imported.get_tensor_by_name("out:0").shape.as_list() == [None, 5, 5, 2]


def test_a_convolution_in_a_function_is_rewritten_there():
    x, kernel = np.random.RandomState(5).randn(2, 7, 7, 3, 1).astype(np.float32)
    x, kernel = x[None, ..., 0], kernel[:3, :3]
    attrs = {"strides": [1] * 4, "dilations": [1, 2, 2, 1], "padding": b"SAME"}
    before = graph(
        const("x", x),
        const("kernel", kernel),
        node("y", "PartitionedCall", "x", "kernel", f=calls("f"), Tin=[F32, F32], Tout=[F32]),
    )
    body = [depthwise("conv", "a", "b", **attrs), node("z", "Neg", "conv:output:0", T=F32)]
    add_function(before, "f", ["a", "b"], {"out": "z:y:0"}, body)
    after, count = operated(before)
    expected = -by_hand(x, kernel, (2, 2), 1, b"SAME")
    assert count == 1
    np.testing.assert_allclose(run(after, "y:0"), expected, rtol=0, atol=1e-5)


def test_a_convolution_in_a_loop_of_tf_1_keeps_its_constants_in_the_loops_frame():
    random = np.random.RandomState(6)
    x = random.randn(1, 7, 7, 2).astype(np.float32)
    kernel = random.randn(3, 3, 2, 1).astype(np.float32)
    with tf.Graph().as_default() as built:

        def body(step, value):
            return step + 1, tf.nn.depthwise_conv2d_native(value, kernel, [1] * 4, "SAME")

        loop = tf.while_loop(lambda step, _: step < 2, body, [0, tf.constant(x)])
        tf.identity(loop[1], name="y")
        before = built.as_graph_def()
    for one in before.node:
        if one.op == "DepthwiseConv2dNative":
            one.attr["dilations"].list.i[:] = [1, 2, 2, 1]
    after, count = operated(before)
    once = by_hand(x, kernel, (2, 2), 1, b"SAME")
    assert count == 1
    expected = by_hand(once, kernel, (2, 2), 1, b"SAME")
    np.testing.assert_allclose(run(after, "y:0"), expected, rtol=0, atol=1e-4)


def proto(dims):
    return tf.TensorShape(dims).as_proto()
