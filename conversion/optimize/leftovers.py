"""Identities between two nodes, and waiting for what has no effect -> gone."""

from __future__ import annotations

from typing import Any, Dict, List, Set, Tuple

from conversion.graphs.frames import guarded, readers
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied
from conversion.optimize.kinds import PURE, SUMMING
from conversion.surgery.rewrite import Rewrite

# Ops that neither fail nor change anything, so that nothing has to wait for them.
HARMLESS = PURE | SUMMING | frozenset(("NoOp", "Placeholder", "PlaceholderWithDefault", "Shape"))
PASSES = ("Identity", "StopGradient", "PreventGradient")


def identities(view: GraphView) -> Tuple[Any, int]:
    """Their readers read what they read. In branches and loops they stay: there they mark places.

    So do those that wait for another node through a control edge.
    """
    inside = guarded(view.graph_def.node)
    passed: Dict[Edge, Edge] = {
        Edge(node.name, 0): Edge.parse(node.input[0])
        for node in view.graph_def.node
        if node.op in PASSES
        and len(node.input) == 1
        and node.name not in inside
        and node.name not in view.roots
    }
    made, moved = copied(view.graph_def), set()
    for node in made.node:
        for index, text in enumerate(node.input):
            edge = Edge.parse(text)
            while edge in passed and edge.index != CONTROL:
                moved.add(edge)
                edge = passed[edge]
            node.input[index] = str(edge)
    return (made, len(moved)) if moved else (view.graph_def, 0)


def waiting(view: GraphView) -> Tuple[Any, int]:
    """Delete control edges to nodes without an effect, such as the pivot of a TPU's cluster.

    Those that hold a node in a loop or branch come from a Switch or Enter and stay, and so do
    those to Assert, to writes, and to anything that is not known.
    """
    harmless = _harmless(view)
    made, count = copied(view.graph_def), 0
    for node in made.node:
        edges = [Edge.parse(text) for text in node.input]
        kept = [str(one) for one in edges if one.index != CONTROL or one.node not in harmless]
        count += len(edges) - len(kept)
        node.input[:] = kept
    return (made, count) if count else (view.graph_def, 0)


def _harmless(view: GraphView) -> Set[str]:
    """Nodes that are harmless, as all is that they need."""
    read_by = readers(view.graph_def.node)
    left = {node.name: len(node.input) for node in view.graph_def.node}
    ready: List[str] = [name for name, count in left.items() if not count]
    found: Set[str] = set()
    while ready:
        name = ready.pop()
        if view.nodes[name].op in HARMLESS:
            found.add(name)
            for reader in read_by.get(name, ()):
                left[reader] -= 1
                if not left[reader]:
                    ready.append(reader)
    return found


WAITING = Rewrite(
    name="waiting",
    does="deletes control edges to nodes that have no effect",
    run=waiting,
)
IDENTITIES = Rewrite(
    name="identities",
    does="deletes identities that are left over of training and of functions",
    run=identities,
)
