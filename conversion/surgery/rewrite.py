"""What a rewrite is: a name, what it does, to which ops, and a pure function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Tuple

from conversion.graphs.graph import GraphView


@dataclass(frozen=True)
class Rewrite:
    """One step of the surgery.

    Attributes:
        name: how the manifest, the report and the documentation call it.
        does: what it does and why the result is the same, in one sentence.
        run: looks at a graph, gives another one and the number of places it changed.
        fates: what becomes of each op that this rewrite takes out of the graph.
        only_for: the precision or target that it is for; "" for all.
        sees: "graph": the main graph and the library as they are. "flat": in functions, edges
            are written as in a main graph, so that an op can be replaced by one whose output
            has another name. "bodies": one graph at a time, the main graph and then each
            function's body (conversion/graphs/functions.py).
    """

    name: str
    does: str
    run: Callable[[GraphView], Tuple[Any, int]]
    fates: Mapping[str, str] = field(default_factory=dict)
    only_for: str = ""
    sees: str = "graph"


def become_identity(node: Any, dtype: int) -> None:
    """Turn a node, in place, into an Identity of its first tensor; control edges stay."""
    kept = [text for index, text in enumerate(node.input) if index == 0 or text.startswith("^")]
    for name in list(node.attr):
        if not name.startswith("_"):
            del node.attr[name]
    node.op = "Identity"
    node.attr["T"].type = dtype
    del node.input[:]
    node.input.extend(kept)
