"""A factor and a term per channel, behind a convolution or product -> its weights and a bias.

Batch norm in inference is y = conv(x, W) * s + (beta - mean * s) with
s = gamma / sqrt(variance + epsilon); that is conv(x, W * s) + (beta - mean * s).
"""

from __future__ import annotations

from typing import Any, Container, Dict, Optional, Tuple

import numpy as np

from conversion.graphs.graph import Edge, GraphView, copied
from conversion.optimize.bias_add import become_bias_add
from conversion.optimize.channels import (
    FLOAT32,
    Linear,
    channel_dims,
    factors,
    linear_before,
)
from conversion.optimize.nodes import Nodes
from conversion.optimize.static_values import Static, data_edges
from conversion.surgery.rewrite import Rewrite, become_identity
from conversion.tf_internals import attr_value

NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
STATISTICS = slice(1, 5)  # scale, offset, mean, variance


def fold_batch_norm(view: GraphView, in_half: Optional[Container[str]] = None) -> Tuple[Any, int]:
    """Of FusedBatchNorm in inference, and of products with a vector of the channels.

    The new weights are computed of the old ones by nodes, which `precompute` then computes ahead.
    Left alone are weights that several ops read, which would be kept once for each.

    Args:
        in_half: the nodes that float16 is safe for, where the graph goes over to it afterwards. A
            factor is folded only if it and the op in front of it are both among them: else the
            product would leave the range of float16 that the factor was kept out of.
    """
    if not any(node.op in NORMS + ("Mul",) for node in view.graph_def.node):
        return view.graph_def, 0
    static = Static(view)
    found = {name: _place(static, node) for name, node in view.nodes.items()}
    places = {
        name: linear
        for name, linear in found.items()
        if linear is not None and (view.nodes[name].op != "Mul" or _stays(name, linear, in_half))
    }
    if not places:
        return view.graph_def, 0
    made = copied(view.graph_def)
    nodes = {node.name: node for node in made.node}
    new = Nodes(nodes)
    for name, linear in places.items():
        if nodes[name].op == "Mul":
            _fold_factor(static, nodes, new, name, linear)
        else:
            _fold_norm(nodes, new, name, linear)
    made.node.extend(new.made)
    return made, len(places)


def _place(static: Static, node: Any) -> Optional[Linear]:
    """The linear op in front of a batch norm or factor that can be folded into it."""
    if node.name in static.view.roots or node.name in static.names:
        return None
    if attr_value(node, "T").type != FLOAT32:
        return None
    if node.op == "Mul":
        sides = factors(static, node)
        linear = linear_before(static, sides[0]) if sides else None
        fits = linear and sides and channel_dims(static, sides[1], linear) is not None
        return linear if fits else None
    return _before_norm(static, node) if node.op in NORMS else None


def _stays(name: str, linear: Linear, in_half: Optional[Container[str]]) -> bool:
    """Whether a factor would be computed in the same dtype as what it is folded into."""
    return in_half is None or (name in in_half and linear.node.name in in_half)


def _before_norm(static: Static, node: Any) -> Optional[Linear]:
    edges = data_edges(node)
    trained = attr_value(node, "is_training").b
    if trained or static.reads_more_than_first(node.name):
        return None
    linear = linear_before(static, edges[0])
    if linear is None or linear.node.op == "MatMul":
        return None
    wanted = (linear.channels,)
    first = attr_value(node, "data_format").s == b"NCHW"
    fits = all(edge in static and static.dims(edge) == wanted for edge in edges[STATISTICS])
    return linear if fits and first == linear.first else None


def _fold_factor(
    static: Static, nodes: Dict[str, Any], new: Nodes, name: str, linear: Linear
) -> None:
    """Mul(linear(x, W) + b, s) = linear(x, W * s) + b * s."""
    node = nodes[name]
    sides = factors(static, node)
    assert sides is not None  # as in `_place`
    computed, factor = sides
    dims = channel_dims(static, factor, linear) or ()
    scale = new.reshaped(f"{name}/factor", str(factor), dims)
    _scale_weights(nodes, new, name, linear, scale, bool(dims))
    if linear.bias is not None and linear.term is not None:
        added, text = nodes[linear.bias.name], str(linear.term)
        other = scale if added.op == "BiasAdd" else str(factor)
        position = [Edge.parse(one) for one in added.input].index(linear.term)
        added.input[position] = new.add(f"{name}/folded_bias", "Mul", text, other)
    control = [text for text in node.input if text.startswith("^")]
    node.input[:] = [str(computed)] + control
    become_identity(node, FLOAT32)


def _fold_norm(nodes: Dict[str, Any], new: Nodes, name: str, linear: Linear) -> None:
    """The norm becomes a BiasAdd; a bias in front of it goes into the mean."""
    node = nodes[name]
    x, scale, offset, mean, variance = [str(edge) for edge in data_edges(node)]
    epsilon = new.constant(f"{name}/epsilon", np.float32(attr_value(node, "epsilon").f))
    spread = new.add(f"{name}/spread", "AddV2", variance, epsilon)
    inverse = new.add(f"{name}/inverse", "Rsqrt", spread)
    factor = new.add(f"{name}/factor", "Mul", inverse, scale)
    if linear.bias is not None and linear.term is not None:
        one = linear.bias.op != "BiasAdd"
        term = new.reshaped(f"{name}/term", str(linear.term), [-1]) if one else str(linear.term)
        mean = new.add(f"{name}/mean", "Sub", mean, term)
        added = nodes[linear.bias.name]
        position = [Edge.parse(text) for text in added.input].index(linear.term)
        del added.input[position]
        become_identity(added, FLOAT32)
    shift = new.add(f"{name}/shift", "Mul", mean, factor)
    bias = new.add(f"{name}/folded_bias", "Sub", offset, shift)
    _scale_weights(nodes, new, name, linear, factor, True)
    control = [text for text in node.input if text.startswith("^")]
    become_bias_add(node, [x, bias] + control, attr_value(node, "data_format").s)


def _scale_weights(
    nodes: Dict[str, Any], new: Nodes, name: str, linear: Linear, scale: str, by_channel: bool
) -> None:
    """Multiply the weights with a vector of the channels, or with one number."""
    node = nodes[linear.node.name]
    if by_channel and node.op == "DepthwiseConv2dNative":
        scale = new.reshaped(f"{name}/per_multiplier", scale, linear.dims[2:])
    elif by_channel and node.op == "MatMul" and attr_value(node, "transpose_b").b:
        scale = new.reshaped(f"{name}/per_row", scale, [linear.channels, 1])
    node.input[1] = new.add(f"{name}/folded_weights", "Mul", str(linear.weights), scale)


FOLD_BATCH_NORM = Rewrite(
    name="fold_batch_norm",
    does="puts batch norm and other factors of a channel into the weights in front of them",
    run=fold_batch_norm,
)
