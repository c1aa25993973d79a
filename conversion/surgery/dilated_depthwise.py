"""Depthwise convolutions with dilations -> the same sums without them."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graft import Site, graft
from conversion.graphs.graph import GraphView
from conversion.graphs.xla import dims
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value

OP = "DepthwiseConv2dNative"

# Products with zeros per product of use up to which zeros are cheaper than moving the image to
# the batch and back: 4 ms either way at rate 2 (2.8), 13 against 4 at rate 4 (9), 200 against 8 at
# rate 12 (70); 3x3 taps, 33x33x128, on a CPU.
MOST_ZEROS = 4


def dilated_depthwise(view: GraphView) -> Tuple[Any, int]:
    """TF 1.15 ignores this op's `dilations` on CPU and GPU without an error.

    A kernel with d-1 zeros between its taps and dilations of 1 gives the same sums for any
    stride, padding and layout, because padding depends on the extent of the kernel alone. For
    large dilations most products would be with zeros: there the convolution runs on the d*d
    images of every d-th pixel (SpaceToBatchND), as TensorFlow builds it outside a TPU; the sums
    are the same to the bit.
    """
    return graft(view, {OP: _build})


def _build(site: Site) -> Optional[List[Any]]:
    dilations = list(attr_value(site.node, "dilations").list.i)
    layout = attr_value(site.node, "data_format").s.decode()
    first = 1 if layout == "NHWC" else 2
    rates = dilations[first : first + 2]
    if max(rates) == 1 or dilations[:first] + dilations[first + 2 :] != [1, 1]:
        return None
    x, kernel = site.inputs
    strides = list(attr_value(site.node, "strides").list.i)
    padding = attr_value(site.node, "padding").s.decode()
    if _mostly_zeros(kernel, rates) and max(strides) == 1 and x.shape.ndims == 4:
        return [tf.nn.depthwise_conv2d(x, kernel, strides, padding, rates, data_format=layout)]
    made = tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=stuffed(kernel, rates[0], rates[1]),
        strides=strides,
        padding=padding,
        data_format=layout,
    )
    return [made]


def _mostly_zeros(kernel: Any, rates: List[int]) -> bool:
    """Whether stuffing a kernel of known size would multiply with zeros for the most part."""
    if not kernel.shape.is_fully_defined():
        return False
    h, w = kernel.shape.as_list()[:2]
    extent = ((h - 1) * rates[0] + 1) * ((w - 1) * rates[1] + 1)
    return extent > MOST_ZEROS * h * w


def stuffed(kernel: Any, rate_h: int, rate_w: int) -> Any:
    """(h, w, c, m) -> ((h-1)*rate_h+1, (w-1)*rate_w+1, c, m), zeros between the taps."""
    kernel.set_shape([None] * 4)
    h, w, c, m = dims(kernel)
    spread = tf.reshape(kernel, [h, 1, w, 1, c * m])
    spread = tf.pad(spread, [[0, 0], [0, rate_h - 1], [0, 0], [0, rate_w - 1], [0, 0]])
    full = tf.reshape(spread, [h * rate_h, w * rate_w, c, m])
    return full[: (h - 1) * rate_h + 1, : (w - 1) * rate_w + 1]


REWRITE = Rewrite(
    name="dilated_depthwise",
    does="spreads, by zeros or over the batch, depthwise taps whose dilations TF 1.15 would ignore",
    run=dilated_depthwise,
    fates={OP: "kept; dilations over 1 are computed without them"},
)
