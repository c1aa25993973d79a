"""Nodes that only describe, start or feed a TPU -> gone, with the control edges to them."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Set, Tuple

from conversion.graphs.graph import CONTROL, Edge, GraphView, with_nodes
from conversion.surgery.rewrite import Rewrite

OPS = (
    "TPUReplicateMetadata",
    "TPUCompilationResult",
    "TPUOrdinalSelector",
    "ConfigureDistributedTPU",
    "_ConfigureDistributedTPU",
    "ShutdownDistributedTPU",
    "_ShutdownDistributedTPU",
    "_InitializeHostForDistributedTPU",
    "_WaitForDistributedTPU",
    "_SetGlobalTPUArray",
    "WorkerHeartbeat",
    "InfeedEnqueue",
    "InfeedEnqueueTuple",
    "InfeedEnqueuePrelinearizedBuffer",
    "Prelinearize",
    "PrelinearizeTuple",
    "OutfeedEnqueue",
    "OutfeedEnqueueTuple",
    "OutfeedDequeue",
    "OutfeedDequeueTuple",
)


def delete_bookkeeping(view: GraphView) -> Tuple[Any, int]:
    """Delete them where no tensor of theirs is read; the nodes that waited for them stay.

    These wait for what the deleted node waited for: in a branch or a loop of TF 1, a constant
    that waits for nothing would run although the branch is not taken.
    """
    gone = _unread(view)
    if not gone:
        return view.graph_def, 0
    made = with_nodes(
        view.graph_def, (node for node in view.graph_def.node if node.name not in gone)
    )
    before: Dict[str, List[str]] = {}
    for node in made.node:
        data = [text for text in node.input if not text.startswith("^")]
        control = [text for text in node.input if text.startswith("^")]
        waits_for = {end: None for text in control for end in _before(text, gone, before)}
        node.input[:] = data + list(waits_for)
    return made, len(gone)


def _unread(view: GraphView) -> Mapping[str, Any]:
    """The nodes of which nothing that stays reads a tensor."""
    found = {node.name: node for node in view.graph_def.node if node.op in OPS}
    while True:
        edges = (
            Edge.parse(text)
            for node in view.graph_def.node
            if node.name not in found
            for text in node.input
        )
        read: Set[str] = {edge.node for edge in edges if edge.index != CONTROL}
        if not read & set(found):
            return found
        found = {name: node for name, node in found.items() if name not in read}


def _before(text: str, gone: Mapping[str, Any], found: Dict[str, List[str]]) -> List[str]:
    """The control edges that say the same as one to a node that goes."""
    if text[1:] not in gone:
        return [text]
    if text not in found:
        inputs = gone[text[1:]].input
        control = [one for one in inputs if one.startswith("^")]
        control = control or [str(Edge(Edge.parse(one).node, CONTROL)) for one in inputs]
        ends = {end: None for one in control for end in _before(one, gone, found)}
        found[text] = list(ends)
    return found[text]


REWRITE = Rewrite(
    name="delete_bookkeeping",
    does="deletes nodes that describe, start or feed a TPU, and the control edges to them",
    run=delete_bookkeeping,
    fates=dict.fromkeys(OPS, "deleted"),
    sees="bodies",
)
