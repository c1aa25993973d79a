"""Shapes of tensors behind loops, which TensorFlow does not infer while it imports a graph.

An import meets the head of a `tf.while_loop` before its body, so what comes round the loop is
unknown there, and so is all that follows. Grappler goes round until the shapes settle.
"""

from __future__ import annotations

from typing import Any, Dict, Sequence

from batchinfer.tf1 import tf
from conversion.graph import Edge
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
            held = graph_def.node.add(name=node.name, op="EnsureShape", input=[node.name + _FED])
            held.attr["T"].CopyFrom(node.attr["dtype"])
            held.attr["shape"].CopyFrom(node.attr["shape"])
            node.name += _FED
    return graph_def


_FED = "/as_it_was_fed"
_UNKNOWN = tf.TensorShape(None)


def _shape(shape: Any) -> Any:
    """Grappler numbers the sizes that it does not know: -1, -2, ... by which are equal."""
    if shape.unknown_rank:
        return _UNKNOWN
    return tf.TensorShape([size.size if size.size >= 0 else None for size in shape.dim])
