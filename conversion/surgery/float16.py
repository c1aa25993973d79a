"""Products, convolutions and what lies between: float32 -> float16, with casts at the edges."""

from __future__ import annotations

from typing import Any, Dict, List, Set, Tuple

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied, with_nodes
from conversion.graphs.half import FLOAT16, FLOAT32, LARGEST, Analysis, as_float16, typed
from conversion.surgery.rewrite import Rewrite


def float16(view: GraphView) -> Tuple[Any, int]:
    """Which nodes, and why no others: see `graphs/half.py`. Inputs and outputs keep their dtypes.

    A tensor is cast once, whatever the number of its readers. An image that is fed is clamped to
    the range of float16 before, so that no value becomes infinite.
    """
    analysis = Analysis(view)
    chosen = analysis.chosen
    if not chosen:
        return view.graph_def, 0
    borders = _Borders(view, chosen)
    nodes: List[Any] = []
    for node in view.graph_def.node:
        half = node.name in chosen
        made = as_float16(node) if half else copied_node(node)
        wanted = set(typed(made)[0]) if half else set()
        for index, text in enumerate(node.input):
            edge = Edge.parse(text)
            if edge.index != CONTROL:
                made.input[index] = borders.crossed(
                    edge, index in wanted, node.name in analysis.raw
                )
        nodes.append(made)
    return copied(with_nodes(view.graph_def, nodes + borders.nodes)), len(chosen)


def copied_node(node: Any) -> Any:
    made = tf.NodeDef()
    made.CopyFrom(node)
    return made


class _Borders:
    """The casts between both sides.

    Attributes:
        nodes: those that were needed.
    """

    def __init__(self, view: GraphView, chosen: Any) -> None:
        self.nodes: List[Any] = []
        self._taken: Set[str] = set(view.nodes)
        self._half = {
            Edge(name, index) for name in chosen for index in typed(as_float16(view.nodes[name]))[1]
        }
        self._casts: Dict[Tuple[Edge, bool, bool], str] = {}

    def crossed(self, edge: Edge, to_half: bool, clamp: bool) -> str:
        """The tensor in the dtype that its reader wants."""
        if (edge in self._half) == to_half:
            return str(edge)
        key = edge, to_half, clamp and to_half
        if key not in self._casts:
            source = self._clamped(edge) if key[2] else str(edge)
            self._casts[key] = self._cast(edge, source, to_half)
        return self._casts[key]

    def _cast(self, edge: Edge, source: str, to_half: bool) -> str:
        node = self._add(edge, "float16" if to_half else "float32", "Cast", [source])
        types = (FLOAT32, FLOAT16) if to_half else (FLOAT16, FLOAT32)
        node.attr["SrcT"].type, node.attr["DstT"].type = types
        return str(node.name)

    def _clamped(self, edge: Edge) -> str:
        text = str(edge)
        for op, value in (("Minimum", LARGEST), ("Maximum", -LARGEST)):
            limit = self._add(edge, f"{op.lower()}_limit", "Const", [])
            limit.attr["dtype"].type = FLOAT32
            limit.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(value)))
            node = self._add(edge, op.lower(), op, [text, limit.name])
            node.attr["T"].type = FLOAT32
            text = node.name
        return text

    def _add(self, edge: Edge, what: str, op: str, inputs: List[str]) -> Any:
        name = f"{edge.node}/{what}" + (f"_{edge.index}" if edge.index else "")
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        self.nodes.append(tf.NodeDef(name=name, op=op, input=inputs))
        return self.nodes[-1]


REWRITE = Rewrite(
    name="float16",
    does="computes convolutions and products in float16, and what lies between where it is safe",
    run=float16,
    only_for="float16",
)
