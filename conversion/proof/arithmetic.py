"""What a graph computes in: float32, or bfloat16 where any op that the outputs need does."""

from __future__ import annotations

from typing import Any, Iterable, List, Set

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView

BFLOAT16 = tf.bfloat16.as_datatype_enum
MOVES = ("Cast", "Identity", "ReadVariableOp", "VarHandleOp", "Placeholder", "Const", "Reshape")


def arithmetic_of(graph_def: Any, outputs: Iterable[str]) -> str:
    """ "bfloat16" or "float32".

    Args:
        outputs: names of tensors; what they do not need is not looked at.
    """
    coarse = any(
        node.op not in MOVES and any(attr.type == BFLOAT16 for attr in node.attr.values())
        for node in needed_nodes(graph_def, outputs)
    )
    return "bfloat16" if coarse else "float32"


def needed_nodes(graph_def: Any, outputs: Iterable[str]) -> List[Any]:
    """The nodes that tensors need, those of the functions they call included."""
    view = GraphView(graph_def, [Edge.parse(tensor).node for tensor in outputs])
    needed = [view.nodes[name] for name in view.reachable()]
    called: Set[str] = set()
    waiting = [name for node in needed for name in view.called_by(node)]
    while waiting:
        name = waiting.pop()
        if name not in called:
            called.add(name)
            body = view.functions[name].node_def
            needed += body
            waiting += [inner for node in body for inner in view.called_by(node)]
    return needed
