"""A node -> the devices on which this TensorFlow has a kernel for its types."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, FrozenSet, Tuple

from batchinfer.tf1 import tf
from conversion.tf_internals import attr_value, kernel_defs

ANY = "DEFAULT"  # TF 2.x registers kernels that run on every device for it

# Ops whose CPU kernel is registered for every layout and then runs NHWC alone (tried in 1.15.5;
# BiasAdd and FusedBatchNorm do run NCHW).
NHWC_ON_CPU = frozenset(
    ("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2",
     "MaxPool", "MaxPoolV2", "MaxPool3D", "AvgPool", "AvgPool3D", "SpaceToDepth", "DepthToSpace")
)  # fmt: skip


def devices(node: Any) -> FrozenSet[str]:
    """Of CPU and GPU, those with a kernel; a kernel for any device counts for both."""
    found = {kernel.device_type for kernel in _kernels(node.op) if _all_fit(node, kernel)}
    both = {"CPU", "GPU"} if ANY in found else found
    if "CPU" in both and node.op in NHWC_ON_CPU and channels_first(node):
        both = both - {"CPU"}
    return frozenset(both)


def has_kernels(op: str) -> bool:
    """Whether an op has a CPU or GPU kernel for any type."""
    return bool(_kernels(op))


def channels_first(node: Any) -> bool:
    """Whether the node's images are stored as NCHW, its volumes as NCDHW."""
    return attr_value(node, "data_format").s.startswith(b"NC")


def types(node: Any) -> str:
    """The node's types, for messages: `T=bfloat16, Tparams=float32`."""
    return ", ".join(
        f"{name}={tf.as_dtype(attr.type).name}"
        for name, attr in sorted(node.attr.items())
        if attr.type and not name.startswith("_")
    )


def checks_gpu() -> bool:
    """Whether this TensorFlow knows GPU kernels, also on a machine without a GPU."""
    return bool(tf.test.is_built_with_cuda())


@lru_cache(maxsize=None)
def _kernels(op: str) -> Tuple[Any, ...]:
    return kernel_defs(op)


def _all_fit(node: Any, kernel: Any) -> bool:
    return all(_fits(node, limit) for limit in kernel.constraint)


def _fits(node: Any, limit: Any) -> bool:
    """Whether a node's types are among those that a kernel is registered for."""
    attr = attr_value(node, limit.name)
    if attr.placeholder:
        return True
    found = [attr.type] if attr.type else list(attr.list.type)
    allowed = set(limit.allowed_values.list.type)
    return not allowed or all(one in allowed for one in found)
