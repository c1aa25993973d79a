"""bfloat16 in loops, branches, arrays and constants that TensorFlow wrote: all float32 after."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.surgery import operate
from tests.conversion.graphs import run
from tests.conversion.test_signatures import save

BF16 = tf.bfloat16
FED = np.array([[1, 2], [3, 4]], np.float32)


def loop(x):
    """s grows by 1.5 in each of three steps; an array keeps what s[0, 0] was."""
    array = tf.TensorArray(BF16, size=3, element_shape=[])

    def body(step, s, array):
        grown = s * tf.constant(0.5, BF16) + tf.cast(tf.cast(s, tf.float32), BF16)
        return step + 1, grown, array.write(step, s[0, 0])

    _, s, array = tf.while_loop(lambda step, *_: step < 3, body, [0, x, array])
    return tf.concat([s, tf.reshape(array.stack()[:2], [1, 2])], 0)


def branch(x):
    chosen = tf.reduce_sum(tf.cast(x, tf.float32)) > 0
    return tf.cond(chosen, lambda: x * tf.constant(2, BF16), lambda: x)


def with_lowest_value(x):
    """The mask is -3.39e38 and stays finite in float32."""
    lowest = tf.fill(tf.shape(x), tf.constant(BF16.min, BF16))
    return tf.maximum(
        tf.where(tf.cast(x, tf.float32) > 1, x, lowest), tf.constant([1.5, 2.5], BF16)
    )


@pytest.mark.parametrize("in_functions", [False, True], ids=["frames", "functions"])
@pytest.mark.parametrize(
    "compute, expected",
    [
        (loop, [[3.375, 6.75], [10.125, 13.5], [1, 1.5]]),
        (branch, [[2, 4], [6, 8]]),
        (with_lowest_value, [[1.5, 2.5], [3, 4]]),
    ],
)
def test_no_bfloat16_is_left_and_the_values_are_those_of_float32(compute, expected, in_functions):
    with tf.Graph().as_default() as built:
        if in_functions:
            tf.enable_control_flow_v2()
        try:
            x = tf.placeholder(BF16, [2, 2], name="x")
            tf.identity(tf.cast(compute(x), tf.float32), name="y")
        finally:
            tf.disable_control_flow_v2()
    assert "BFLOAT16" in str(built.as_graph_def())
    after, _ = operate(built.as_graph_def(), ["y"])
    assert "BFLOAT16" not in str(after)
    assert run(after, "y:0", {"x:0": FED}).tolist() == expected


def test_an_output_in_bfloat16_is_compared_as_the_float32_that_the_bundle_gives(tmp_path):
    def build():
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        kernel = tf.get_variable("kernel", [2, 3])
        product = tf.cast(tf.matmul(x, kernel), BF16)
        return {"x": x}, {"rounded": product * tf.constant(0.5, BF16)}

    convert(ConvertOptions(save(tmp_path / "model", build), str(tmp_path / "bundle")))
    manifest = Bundle.open(str(tmp_path / "bundle")).manifest
    assert manifest["signature"]["outputs"]["rounded"]["dtype"] == "float32"
    assert manifest["parity"]["passed"]
    as_traced = manifest["parity_bfloat16"]["outputs"]["rounded"]
    assert as_traced["problem"] == "" and 0 < as_traced["max_absdiff"] < 0.1
