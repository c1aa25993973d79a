"""XLA's ConvGeneralDilated over one or two dimensions, in ops of TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Optional, Sequence

from batchinfer.tf1 import tf
from conversion.graphs.xla import pad


@dataclass(frozen=True)
class Window:
    """How a kernel moves over its input; a value per spatial dimension.

    Attributes:
        strides: steps of the kernel.
        low, high: zeros before and behind the input; negative ones cut off.
        input_rates: distance of the input's elements, with zeros between them.
        kernel_rates: distance of the kernel's taps.
        groups: feature groups.
    """

    strides: Sequence[int]
    low: Sequence[int]
    high: Sequence[int]
    input_rates: Sequence[int]
    kernel_rates: Sequence[int]
    groups: int


def convolution(lhs: Any, rhs: Any, window: Window, numbers: Any) -> Optional[Any]:
    """None for what TensorFlow has no convolution for: three dimensions, unknown shapes.

    Args:
        numbers: a ConvolutionDimensionNumbers.
    """
    num_spatial = len(numbers.input_spatial_dimensions)
    if num_spatial not in (1, 2) or lhs.shape.ndims is None or not rhs.shape.is_fully_defined():
        return None
    x = tf.transpose(lhs, _images(numbers, "input"))
    kernel = tf.transpose(rhs, _kernel(numbers))
    x = pad(
        x,
        tf.zeros([], x.dtype),
        [0, *window.low, 0],
        [0, *window.high, 0],
        [0, *[rate - 1 for rate in window.input_rates], 0],
    )
    strides, rates = list(window.strides), list(window.kernel_rates)
    if num_spatial == 1:
        x, kernel = tf.expand_dims(x, 1), tf.expand_dims(kernel, 0)
        strides, rates = [strides[0], *strides], [1, *rates]
    made = _grouped(x, kernel, strides, rates, window.groups)
    if made is None:
        return None
    made = tf.squeeze(made, [1]) if num_spatial == 1 else made
    output = _images(numbers, "output")
    return tf.transpose(made, [output.index(axis) for axis in range(len(output))])


def _images(numbers: Any, side: str) -> List[int]:
    """The dimensions of input or output in the order batch, spatial, feature."""
    batch, feature = (getattr(numbers, f"{side}_{one}_dimension") for one in ("batch", "feature"))
    return [batch, *getattr(numbers, f"{side}_spatial_dimensions"), feature]


def _kernel(numbers: Any) -> List[int]:
    return [
        *numbers.kernel_spatial_dimensions,
        numbers.kernel_input_feature_dimension,
        numbers.kernel_output_feature_dimension,
    ]


def _grouped(
    x: Any, kernel: Any, strides: List[int], rates: List[int], groups: int
) -> Optional[Any]:
    """An (n, h, w, c) input over an (h, w, c / groups, features) kernel."""
    options = {"strides": [1, *strides, 1], "padding": "VALID", "dilations": [1, *rates, 1]}
    if groups == 1:
        return tf.raw_ops.Conv2D(input=x, filter=kernel, **options)
    h, w, depth, features = kernel.shape.as_list()
    if depth == 1:
        if strides[0] != strides[1]:  # for which the op has no kernel
            return None
        kernel = tf.reshape(kernel, [h, w, groups, features // groups])
        return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=kernel, **options)
    parts = zip(tf.split(x, groups, 3), tf.split(kernel, groups, 3))
    return tf.concat([tf.raw_ops.Conv2D(input=one, filter=two, **options) for one, two in parts], 3)
