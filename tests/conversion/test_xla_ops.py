"""XLA's own operations in ops of TensorFlow, against XLA itself, which TF 1.15 has for CPUs."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, check
from conversion.surgery import xla_ops as surgery
from conversion.tf_internals import xla_message
from tests.conversion.graphs import add_function, node, run

pytest.importorskip("tensorflow.compiler.tf2xla.python.xla", reason="only TF 1.15 has it")
from tensorflow.compiler.tf2xla.python import xla
from tensorflow.compiler.xla import xla_data_pb2

RANDOM = np.random.RandomState(9)
DOT, CONV = xla_data_pb2.DotDimensionNumbers, xla_data_pb2.ConvolutionDimensionNumbers


def by_xla(compute, arrays):
    with tf.Graph().as_default(), tf.Session() as session:
        inputs = [tf.constant(array) for array in arrays]
        return session.run(tf.xla.experimental.compile(compute, inputs))


def by_surgery(compute, arrays, unknown):
    """The op built outside of XLA, its inputs' first dimension known or not, and rewritten."""
    with tf.Graph().as_default() as built:
        shapes = [(None,) + array.shape[1:] if unknown else array.shape for array in arrays]
        inputs = [tf.placeholder(array.dtype, shape) for array, shape in zip(arrays, shapes)]
        outputs = compute(*inputs)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        outputs = [tf.identity(output) for output in outputs]
        before = built.as_graph_def()
    after, count = surgery.xla_ops(GraphView(before))
    check(after, "xla_ops")
    assert count and not [one.op for one in after.node if one.op.startswith("Xla")]
    feeds = {tensor.name: array for tensor, array in zip(inputs, arrays)}
    return run(after, [tensor.name for tensor in outputs], feeds)


def floats(*shape):
    return RANDOM.randint(-9, 9, shape).astype(np.float32)


def conv(lhs, rhs, layout, strides=(1, 1), padding=((0, 0), (0, 0)), rates=(1, 1), spread=(1, 1),
         groups=1):  # fmt: skip
    return xla.conv(lhs, rhs, strides, padding, spread, rates, layout, groups)


def layout(images, kernel, output=None):
    """From words such as `nhwc` and `hwio`."""
    output = output or images
    return CONV(
        input_batch_dimension=images.index("n"),
        input_feature_dimension=images.index("c"),
        input_spatial_dimensions=[images.index(one) for one in "hw" if one in images],
        kernel_input_feature_dimension=kernel.index("i"),
        kernel_output_feature_dimension=kernel.index("o"),
        kernel_spatial_dimensions=[kernel.index(one) for one in "hw" if one in kernel],
        output_batch_dimension=output.index("n"),
        output_feature_dimension=output.index("c"),
        output_spatial_dimensions=[output.index(one) for one in "hw" if one in output],
    )


NHWC, NCHW = layout("nhwc", "hwio"), layout("nchw", "oihw", "cnwh".replace("wh", "hw"))
CASES = {
    "dot": (
        lambda a, b: xla.dot_general(a, b, DOT(lhs_contracting_dimensions=[1],
                                               rhs_contracting_dimensions=[0])),
        [floats(2, 3), floats(3, 4)],
    ),
    "dot with batch": (
        lambda a, b: xla.dot_general(a, b, DOT(
            lhs_contracting_dimensions=[1], rhs_contracting_dimensions=[2],
            lhs_batch_dimensions=[0, 3], rhs_batch_dimensions=[0, 1])),
        [floats(2, 3, 4, 5), floats(2, 5, 3, 6)],
    ),
    "conv": (lambda a, b: conv(a, b, NHWC, (2, 1), ((1, 2), (0, 1))),
             [floats(2, 6, 7, 3), floats(3, 2, 3, 4)]),
    "conv of channels first, negative padding": (
        lambda a, b: conv(a, b, NCHW, padding=((-1, 0), (2, -1))),
        [floats(2, 3, 6, 7), floats(4, 3, 3, 2)]),
    "conv with rates": (lambda a, b: conv(a, b, NHWC, (2, 2), ((2, 2), (2, 2)), (2, 3)),
                        [floats(2, 7, 8, 3), floats(3, 2, 3, 4)]),
    "transposed conv": (lambda a, b: conv(a, b, NHWC, (1, 1), ((2, 2), (1, 3)), spread=(2, 3)),
                        [floats(2, 4, 5, 3), floats(3, 3, 3, 4)]),
    "grouped conv": (lambda a, b: conv(a, b, NHWC, groups=2),
                     [floats(2, 4, 5, 6), floats(2, 2, 3, 4)]),
    "depthwise conv": (lambda a, b: conv(a, b, NHWC, (2, 2), groups=3),
                       [floats(2, 5, 5, 3), floats(2, 2, 1, 6)]),
    "conv of one dimension": (
        lambda a, b: xla.conv(a, b, [2], [[1, 1]], [1], [2], layout("nhc", "hio")),
        [floats(2, 9, 3), floats(3, 3, 4)]),
    "pad": (lambda a: xla.pad(a, np.float32(7), [1, 0, 2], [0, 3, 0], [0, 0, 0]),
            [floats(2, 3, 4)]),
    "pad inside": (lambda a: xla.pad(a, np.float32(7), [1, 0, 2], [0, 3, 0], [2, 0, 1]),
                   [floats(2, 3, 4)]),
    "slice": (lambda a, i: xla.dynamic_slice(a, i, [1, 2]),
              [floats(3, 4), np.array([1, 2], np.int32)]),
    "slice beyond the end": (lambda a, i: xla.dynamic_slice(a, i, [2, 2]),
                             [floats(3, 4), np.array([9, -5], np.int64)]),
    "update": (xla.dynamic_update_slice,
               [floats(3, 4), floats(2, 2), np.array([1, 1], np.int32)]),
    "update beyond the end": (xla.dynamic_update_slice,
                              [floats(3, 4), floats(1, 2), np.array([-7, 9], np.int32)]),
    "sort": (xla.sort, [floats(3, 20)]),
    "sort of integers": (xla.sort, [np.array([[5, -2**31, 2**31 - 1, -1]], np.int32)]),
    "sort of keys": (xla.key_value_sort, [np.arange(24)[::-1].reshape(2, 3, 4).astype(np.float32),
                                          np.arange(24, dtype=np.int32).reshape(2, 3, 4)]),
    "sum in higher dimensions": (lambda a, b: xla.add(a, b, broadcast_dims=[0, 2]),
                                 [floats(2, 3, 4), floats(2, 4)]),
    "product the other way round": (lambda a, b: xla.mul(a, b, broadcast_dims=[1]),
                                    [floats(3), floats(2, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("unknown", [False, True], ids=["known", "unknown"])
@pytest.mark.parametrize("name", CASES)
def test_it_gives_what_xla_gives(name, unknown):
    compute, arrays = CASES[name]
    found, expected = (
        by_surgery(compute, arrays, unknown and "conv" not in name),
        by_xla(*CASES[name]),
    )
    for one, other in zip(found, expected):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("op", ["Add", "Mul", "Maximum", "Minimum"])
def test_a_reduction_by_one_op_becomes_that_reduction(op):
    array = floats(2, 3, 4)

    @tf_defun()
    def reducer(x, y):
        return getattr(tf.raw_ops, op)(x=x, y=y)

    def compute(x):
        return xla.reduce(x, tf.constant(2.0), [0, 2], reducer)

    found, expected = by_surgery(compute, [array], False), by_xla(compute, [array])
    assert np.array_equal(found[0], expected[0])


def test_a_reduction_by_anything_else_stays_to_be_refused():
    @tf_defun()
    def reducer(x, y):
        return x * y + x

    with tf.Graph().as_default() as built:
        xla.reduce(tf.ones([2, 3]), tf.constant(2.0), [0], reducer)
    before = built.as_graph_def()
    assert surgery.xla_ops(GraphView(before)) == (before, 0)


def tf_defun():
    from tensorflow.python.framework import function

    return function.Defun(tf.float32, tf.float32)


def test_a_sort_of_unknown_rank_stays_to_be_refused():
    keys, values = np.array([[3.0, 1.0]], np.float32), np.array([[7.0, 8.0]], np.float32)
    with tf.Graph().as_default() as built:
        tf.constant(keys, name="k")
        tf.constant(values, name="v")
    before = built.as_graph_def()
    before.node.add().CopyFrom(node("y", "f", "k", "v"))
    outputs = {"a": "s:sorted_values:0", "b": "s:sorted_keys:0"}
    body = [node("s", "XlaKeyValueSort", "p", "q", K=tf.float32, V=tf.float32)]
    add_function(before, "f", ["p", "q"], outputs, body)
    assert surgery.xla_ops(GraphView(before)) == (before, 0)


def test_messages_of_xla_are_read():
    packed = DOT(lhs_contracting_dimensions=[1]).SerializeToString()
    assert list(xla_message("DotDimensionNumbers", packed).lhs_contracting_dimensions) == [1]
