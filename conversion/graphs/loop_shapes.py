"""Shapes of tensors behind loops, which TensorFlow does not infer while it imports a graph.

An import meets the head of a `tf.while_loop` before its body, so what comes round the loop is
unknown there, and so is all that follows. Grappler goes round until the shapes settle. What a
TensorArray gathers (the result of every `tf.map_fn`) is unknown to both, although the node says
what shape its elements have.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge
from conversion.tf_internals import op_properties


def settled_shapes(graph: Any, tensors: Sequence[str]) -> Dict[str, Any]:
    """TensorShape by tensor name (`x:0`); unknown ranks stay unknown."""
    edges = {tensor: Edge.parse(tensor) for tensor in tensors}
    found = op_properties(
        _fed_as_declared(graph.as_graph_def()), [edge.node for edge in edges.values()]
    )
    return {
        tensor: _shape(found[edge.node][edge.index].shape) if edge.node in found else _UNKNOWN
        for tensor, edge in edges.items()
    }


def _fed_as_declared(graph_def: Any) -> Any:
    """Hold placeholders to their shapes: Grappler takes what is fed for anything at all."""
    for node in list(graph_def.node):
        if node.op == "Placeholder":
            _hold(graph_def, node, node.attr["shape"].shape)
        elif node.op == "TensorArrayGatherV3":
            element = node.attr["element_shape"].shape
            if not element.unknown_rank:
                _hold(graph_def, node, _STACKED.concatenate(element).as_proto())
    return graph_def


def _hold(graph_def: Any, node: Any, shape: Any) -> None:
    """Put an EnsureShape under the name of a node of one output, and the node in front of it."""
    held = graph_def.node.add(name=node.name, op="EnsureShape", input=[node.name + _HELD])
    held.attr["T"].CopyFrom(node.attr["dtype"])
    held.attr["shape"].shape.CopyFrom(shape)
    node.name += _HELD


_HELD = "/as_it_was"
_STACKED = tf.TensorShape([None])
_UNKNOWN = tf.TensorShape(None)


def _shape(shape: Any) -> Any:
    """Grappler numbers the sizes that it does not know: -1, -2, ... by which are equal."""
    if shape.unknown_rank:
        return _UNKNOWN
    return tf.TensorShape([size.size if size.size >= 0 else None for size in shape.dim])
