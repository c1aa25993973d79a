"""A sum of a convolution or product with a vector -> a BiasAdd, which costs no pass of its own."""

from __future__ import annotations

from typing import Any, Tuple

from conversion.graphs.graph import GraphView, copied
from conversion.optimize.channels import FLOAT32, SUMS, channel_dims, linear_before, sum_sides
from conversion.optimize.nodes import Nodes
from conversion.optimize.static_values import Static
from conversion.surgery.rewrite import Rewrite


def become_bias_add(node: Any, inputs: Any, data_format: bytes) -> None:
    """Turn a node, in place, into a BiasAdd of the same name."""
    for attr in list(node.attr):
        if not attr.startswith("_"):
            del node.attr[attr]
    node.op = "BiasAdd"
    node.attr["T"].type = FLOAT32
    node.attr["data_format"].s = data_format or b"NHWC"
    node.input[:] = inputs


def bias_add(view: GraphView) -> Tuple[Any, int]:
    """TensorFlow computes a product, its BiasAdd and its Relu in one pass, an Add in one more."""
    if not any(node.op in SUMS for node in view.graph_def.node):
        return view.graph_def, 0
    static = Static(view)
    made = copied(view.graph_def)
    new = Nodes(view.nodes)
    count = sum(_as_bias_add(static, node, new) for node in made.node)
    if not count:
        return view.graph_def, 0
    made.node.extend(new.made)
    return made, count


def _as_bias_add(static: Static, node: Any, new: Nodes) -> bool:
    sides = sum_sides(static, node) if node.op in SUMS else None
    if sides is None or node.name in static.view.roots:
        return False
    linear = linear_before(static, sides[0])
    if linear is None or linear.first or linear.bias is not None:
        return False
    if channel_dims(static, sides[1], linear) != (linear.channels,):
        return False
    term = str(sides[1])
    if len(static.dims(sides[1]) or ()) > 1:
        term = new.reshaped(f"{node.name}/bias", term, [linear.channels])
    control = [text for text in node.input if text.startswith("^")]
    become_bias_add(node, [str(sides[0]), term] + control, b"NHWC")
    return True


BIAS_ADD = Rewrite(
    name="bias_add",
    does="adds vectors to products and convolutions in the same pass",
    run=bias_add,
)
