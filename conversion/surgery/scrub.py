"""Devices, placement hints and TPU attributes -> gone."""

from __future__ import annotations

from typing import Any, List, Set, Tuple

from conversion.graphs.graph import GraphView, copied
from conversion.surgery.rewrite import Rewrite

PREFIXES = ("_tpu", "_xla", "_Xla", "_output_shapes")
RECORDED = "_output_shapes"
LOOKUP = "LookupTableFind"


def scrub(view: GraphView) -> Tuple[Any, int]:
    """`_output_shapes` are stale after surgery; TensorFlow infers them again at import.

    Except of a lookup's: only the Python that wrote it knew that it has its keys' shape, and all
    that reads it would be of unknown rank. Rows may have been opened, so they stay open.
    """
    graph_def = copied(view.graph_def)
    names = set(view.nodes)
    lookups = {node.name: _recorded(node) for node in graph_def.node if node.op.startswith(LOOKUP)}
    count = sum(_scrub_node(node, names) for node in graph_def.node)
    for function in graph_def.library.function:
        body = {node.name for node in function.node_def}
        count += sum(_scrub_node(node, body) for node in function.node_def)
        _drop_attrs(function.attr)
    for node in graph_def.node:
        if lookups.get(node.name):
            node.attr[RECORDED].list.shape.extend(lookups[node.name])
    return graph_def, count


def _recorded(node: Any) -> List[Any]:
    """The shapes that were recorded for a node, their first dimension open; [] without any."""
    found = [*node.attr[RECORDED].list.shape] if RECORDED in node.attr else []
    shapes = [type(shape).FromString(shape.SerializeToString()) for shape in found]
    for shape in shapes:
        if shape.dim:
            shape.dim[0].size = -1
    return shapes


def _scrub_node(node: Any, names: Set[str]) -> bool:
    before = node.device, len(node.attr)
    node.device = ""
    _drop_attrs(node.attr)
    if "_class" in node.attr:
        places = [name for name in node.attr["_class"].list.s if name[5:].decode() in names]
        node.attr["_class"].list.s[:] = places
        if not places:
            del node.attr["_class"]
    return before != (node.device, len(node.attr))


def _drop_attrs(attrs: Any) -> None:
    for name in list(attrs):
        if name.startswith(PREFIXES):
            del attrs[name]


REWRITE = Rewrite(
    name="scrub",
    does="clears devices, colocation with deleted nodes, stale shapes and TPU attributes",
    run=scrub,
)
