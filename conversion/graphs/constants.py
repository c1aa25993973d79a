"""A tensor that depends on constants alone -> its value."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView
from conversion.tf_internals import op_def

MOST_NODES = 100  # of a computation that is worth looking at; group tables are one constant


def constant_value(view: GraphView, edge: Edge) -> Optional[Any]:
    """The array, computed where it is not a Const itself; None where it is not constant."""
    found: Dict[str, Any] = {}
    waiting = [edge.node]
    while waiting:
        name = waiting.pop()
        node = view.nodes.get(name)
        if name in found:
            continue
        if node is None or not _is_pure(node) or len(found) == MOST_NODES:
            return None
        found[name] = node
        waiting += [Edge.parse(text).node for text in _data(node)]
    if found[edge.node].op == "Const":
        return tf.make_ndarray(found[edge.node].attr["value"].tensor)
    return _computed(list(found.values()), edge)


def _computed(nodes: List[Any], edge: Edge) -> Any:
    graph_def = tf.GraphDef()
    for node in nodes:
        made = graph_def.node.add(name=node.name, op=node.op, input=_data(node))
        for name, attr in node.attr.items():
            if not name.startswith("_"):
                made.attr[name].CopyFrom(attr)
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        return session.run(f"{edge.node}:{edge.index}")


def _data(node: Any) -> List[str]:
    return [text for text in node.input if not text.startswith("^")]


def _is_pure(node: Any) -> bool:
    definition = op_def(node.op)
    return definition is not None and not definition.is_stateful and node.op not in NOT_CONSTANT


NOT_CONSTANT = ("Placeholder", "PlaceholderWithDefault", "Switch", "Merge", "Enter", "Exit",
                "NextIteration", "LoopCond", "_Arg")  # fmt: skip
