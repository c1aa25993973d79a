"""Nodes that only describe or start a TPU -> gone, with the control edges to them."""

from __future__ import annotations

from typing import Any, Set, Tuple

from conversion.graph import GraphView, copied
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
)


def delete_bookkeeping(view: GraphView) -> Tuple[Any, int]:
    """Delete them where no tensor of theirs is read; the nodes that waited for them stay."""
    graph_def = copied(view.graph_def)
    count = _delete(graph_def.node, set())
    for function in graph_def.library.function:
        returned = {text.partition(":")[0] for text in function.ret.values()}
        count += _delete(function.node_def, returned)
        body = {node.name for node in function.node_def}
        for name, node in list(function.control_ret.items()):
            if node not in body:
                del function.control_ret[name]
                function.signature.control_output.remove(name)
    return graph_def, count


def _delete(nodes: Any, returned: Set[str]) -> int:
    """Delete in place from the nodes of a graph or of a function; the number deleted."""
    read = {text.partition(":")[0] for node in nodes for text in node.input if text[0] != "^"}
    read |= returned
    gone: Set[str] = {node.name for node in nodes if node.op in OPS and node.name not in read}
    kept = [node for node in nodes if node.name not in gone]
    for node in kept:
        edges = [text for text in node.input if not (text[0] == "^" and text[1:] in gone)]
        del node.input[:]
        node.input.extend(edges)
    kept = [type(node).FromString(node.SerializeToString()) for node in kept]
    del nodes[:]
    nodes.extend(kept)
    return len(gone)


REWRITE = Rewrite(
    name="delete_bookkeeping",
    does="deletes nodes that describe or start a TPU, and the control edges to them",
    run=delete_bookkeeping,
    fates=dict.fromkeys(OPS, "deleted"),
)
