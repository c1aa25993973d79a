"""Nodes and functions that the outputs do not need -> gone."""

from __future__ import annotations

from typing import Any, Tuple

from conversion.graphs.graph import GraphView, with_nodes
from conversion.surgery.rewrite import Rewrite


def sweep(view: GraphView) -> Tuple[Any, int]:
    """Keep what the roots reach; savers, initialisers and training go with the rest."""
    needed = view.reachable()
    kept = [node for node in view.graph_def.node if node.name in needed]
    made = with_nodes(view.graph_def, kept)
    called = GraphView(made).reachable_functions()
    functions = [view.functions[name] for name in sorted(called)]
    del made.library.function[:]
    made.library.function.extend(functions)
    return made, len(view.graph_def.node) - len(kept)


REWRITE = Rewrite(
    name="sweep",
    does="deletes the nodes and functions that the outputs do not need",
    run=sweep,
)
