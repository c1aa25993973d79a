"""Which nodes of a float32 graph can compute in float16 without leaving its range: pure analysis.

float16 ends at 65504 and tensor cores need it, so the products that take the time are computed in
it, and what lies between two of them if it cannot grow. Everything else stays in float32: sums of
activations outside of images, moments, softmax, exp and log, losses, embeddings, loops, functions.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, List, Optional, Set, Tuple

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs import kernels
from conversion.graphs.graft import inferred
from conversion.graphs.graph import CONTROL, Edge, GraphView
from conversion.tf_internals import attr_value, op_def

FLOAT32, FLOAT16 = tf.float32.as_datatype_enum, tf.float16.as_datatype_enum
LARGEST = float(np.finfo(np.float16).max)

HEAVY = frozenset(
    ("Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3D", "MatMul", "BatchMatMul",
     "BatchMatMulV2")
)  # fmt: skip
IMAGES = frozenset(("Conv2D", "DepthwiseConv2dNative"))
# Ops that move values, or give none larger than they got; batch norm keeps float32 statistics.
MOVES = frozenset(
    ("Identity", "Reshape", "Transpose", "Squeeze", "ExpandDims", "Pad", "ConcatV2", "Split",
     "SplitV", "Slice", "StridedSlice", "Pack", "Unpack", "Tile", "SpaceToBatchND",
     "BatchToSpaceND", "SpaceToDepth", "DepthToSpace", "ResizeNearestNeighbor")
)  # fmt: skip
BOUNDED = frozenset(("Relu", "Relu6", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "MaxPool", "BiasAdd"))
BATCH_NORMS = {"FusedBatchNorm": "FusedBatchNormV2", "FusedBatchNormV2": "FusedBatchNormV2",
               "FusedBatchNormV3": "FusedBatchNormV3"}  # fmt: skip
AT_MOST_ONE = frozenset(("Sigmoid", "Tanh", "Softmax", "HardSigmoid"))
SUMS, PRODUCTS = frozenset(("Add", "AddV2", "Sub")), frozenset(("Mul",))
# Ops that give what they got, or as much more as their constants say.
GROWS = MOVES | SUMS | PRODUCTS | frozenset(
    ("Cast", "RealDiv", "Div", "IdentityN", "PlaceholderWithDefault", "BiasAdd", "Relu",
     "LeakyRelu", "Elu", "MaxPool", "AvgPool", "Neg", "Abs", "Maximum", "Minimum", "Square")
)  # fmt: skip
SCALES = (1e-4, 1024.0)  # constant factors that neither flush to zero nor leave the range


def typed(node: Any) -> Tuple[Tuple[int, ...], Tuple[int, ...]]:
    """Positions of the inputs and outputs whose dtype is the node's attribute `T`."""
    definition = op_def(node.op)
    if definition is None:
        return (), ()
    return _positions(node, definition.input_arg), _positions(node, definition.output_arg)


def _positions(node: Any, arguments: Any) -> Tuple[int, ...]:
    found: List[int] = []
    index = 0
    for argument in arguments:
        number = 1
        if argument.number_attr:
            number = int(attr_value(node, argument.number_attr).i)
        elif argument.type_list_attr:
            number = len(attr_value(node, argument.type_list_attr).list.type)
        if argument.type_attr == "T":
            found += range(index, index + number)
        index += number
    return tuple(found)


def as_float16(node: Any) -> Any:
    """A copy of the node that computes in float16; batch norm in the version with two types."""
    made = tf.NodeDef()
    made.CopyFrom(node)
    made.attr["T"].type = FLOAT16
    if node.op in BATCH_NORMS:
        made.op = BATCH_NORMS[node.op]
        made.attr["U"].type = FLOAT32
    return made


class Analysis:
    """A graph's nodes for float16.

    Attributes:
        chosen: names of the nodes that compute in float16.
        raw: those of them that read an input of the model as it is fed: images.
    """

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._graph = inferred(view.graph_def)
        self._extents: Dict[str, Tuple[float, float]] = {}
        self._inputs: Dict[str, List[Edge]] = {
            node.name: [edge for edge in map(Edge.parse, node.input) if edge.index != CONTROL]
            for node in view.graph_def.node
        }
        self._readers = self._readers_by_name()
        self._fed = self._forward(
            {node.name for node in view.graph_def.node if _comes_from_outside(node)}
        )
        enters = {node.name for node in view.graph_def.node if node.op in ("Enter", "RefEnter")}
        self._in_loops = self._forward(enters, lambda node: node.op not in ("Exit", "RefExit"))
        self.chosen = self._choose()
        self.raw = frozenset(name for name in self.chosen if self._reads_raw(name))

    def _choose(self) -> FrozenSet[str]:
        """Heavy nodes, and light ones on a way between two of them, until all their inputs fit."""
        able = [node for node in self._view.graph_def.node if self._is_able(node)]
        heavy = {node.name for node in able if node.op in HEAVY and self._suits(node)}
        light = {node.name for node in able if node.op not in HEAVY and self._is_light(node)}
        while True:
            between = self._forward(heavy, self._among(light)) & light
            between &= self._backward(heavy, self._among(light))
            misfits = {name for name in between if not self._fits(name, heavy | between)}
            if not misfits:
                return frozenset(heavy | between)
            light -= misfits

    def _is_able(self, node: Any) -> bool:
        """A float32 node of the main graph, outside of loops, that has float16 kernels."""
        if node.op not in HEAVY | MOVES | BOUNDED | SUMS | PRODUCTS | set(BATCH_NORMS):
            return False
        if attr_value(node, "T").type != FLOAT32 or node.name in self._in_loops:
            return False
        wanted = {"CPU", "GPU"} if kernels.checks_gpu() else {"CPU"}
        if kernels.channels_first(node):
            wanted.discard("CPU")
        return node.name not in self._view.roots and wanted <= kernels.devices(as_float16(node))

    def _suits(self, node: Any) -> bool:
        """A heavy node on an input as it is fed, of unknown range, stays, unless that is an image;
        so does one whose constants, or those before it, are out of range, and one that has no
        activations.
        """
        edges = [self._inputs[node.name][index] for index in typed(node)[0]]
        constants = all(self._in_range(edge) for edge in edges)
        raw = self._reads_raw(node.name) and node.op not in IMAGES
        known = constants and not raw and not self._reads_wide(node.name)
        return known and any(edge.node in self._fed for edge in edges)

    def _is_light(self, node: Any) -> bool:
        if node.op in SUMS:
            return self._rank(node) == 4 or any(self._static(edge) for edge in self._edges(node))
        if node.op in PRODUCTS:
            return any(self._is_safe_factor(node, edge) for edge in self._edges(node))
        return True

    def _is_safe_factor(self, node: Any, edge: Edge) -> bool:
        """A gate of at most 1, a constant of moderate size, or a weight of an image's channels."""
        if self._behind_moves(edge).op in AT_MOST_ONE:
            return True
        extent = self._extent(edge)
        if extent is None:
            return self._static(edge) and self._rank(node) == 4
        return SCALES[0] <= extent[0] and extent[1] <= SCALES[1]

    def _fits(self, name: str, chosen: Set[str]) -> bool:
        """Whether each input of a light node is in float16 anyway, or a weight in its range."""
        return all(
            edge.node in chosen or (self._static(edge) and self._in_range(edge))
            for edge in self._edges(self._view.nodes[name])
        )

    def _edges(self, node: Any) -> List[Edge]:
        return [self._inputs[node.name][index] for index in typed(node)[0]]

    def _static(self, edge: Edge) -> bool:
        return edge.node not in self._fed

    def _in_range(self, edge: Edge) -> bool:
        """Not a constant, or one that float16 holds."""
        extent = self._extent(edge)
        return extent is None or extent[1] <= LARGEST

    def _extent(self, edge: Edge) -> Optional[Tuple[float, float]]:
        """The smallest and the largest size among a constant's values but 0 and infinity."""
        node = self._behind_moves(edge)
        if node.op != "Const" or attr_value(node, "dtype").type != FLOAT32:
            return None
        if node.name not in self._extents:
            size = np.abs(tf.make_ndarray(node.attr["value"].tensor))
            size = size[(size > 0) & np.isfinite(size)]
            extent = (float(size.min()), float(size.max())) if size.size else (1.0, 1.0)
            self._extents[node.name] = extent
        return self._extents[node.name]

    def _behind_moves(self, edge: Edge) -> Any:
        """The node that gave a tensor its values."""
        node = self._view.nodes[edge.node]
        while node.op in ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose"):
            node = self._view.nodes[self._inputs[node.name][0].node]
        return node

    def _reads_raw(self, name: str) -> bool:
        """Whether a heavy node's activations are what was fed, moved, cast or scaled by weights."""
        return any(_comes_from_outside(node) for node in self._origins(name))

    def _reads_wide(self, name: str) -> bool:
        """Whether a constant that float16 does not hold went into a heavy node's activations."""
        return any(
            not self._in_range(edge) for node in self._origins(name) for edge in self._edges(node)
        )

    def _origins(self, name: str) -> List[Any]:
        """The fed nodes behind a heavy node, back to those whose range is another."""
        waiting = self._edges(self._view.nodes[name])
        seen: Dict[str, Any] = {}
        while waiting:
            edge = waiting.pop()
            node = self._view.nodes[edge.node]
            if edge.node not in seen and edge.node in self._fed:
                seen[edge.node] = node
                if node.op in GROWS:
                    waiting += self._edges(node) or self._inputs[node.name]
        return list(seen.values())

    def _rank(self, node: Any) -> Optional[int]:
        rank = self._graph.get_operation_by_name(node.name).outputs[0].shape.ndims
        return None if rank is None else int(rank)

    def _readers_by_name(self) -> Dict[str, List[str]]:
        readers: Dict[str, List[str]] = {name: [] for name in self._inputs}
        for name, edges in self._inputs.items():
            for edge in edges:
                readers[edge.node].append(name)
        return readers

    def _among(self, names: Set[str]) -> Callable[[Any], bool]:
        return lambda node: node.name in names

    def _forward(
        self, starts: Set[str], through: Optional[Callable[[Any], bool]] = None
    ) -> Set[str]:
        return self._spread(starts, self._readers.__getitem__, through)

    def _backward(self, starts: Set[str], through: Callable[[Any], bool]) -> Set[str]:
        return self._spread(starts, lambda name: [e.node for e in self._inputs[name]], through)

    def _spread(
        self,
        starts: Set[str],
        neighbours: Callable[[str], List[str]],
        through: Optional[Callable[[Any], bool]],
    ) -> Set[str]:
        """The starts and all that is reached from them over nodes that `through` lets pass."""
        found, waiting = set(starts), list(starts)
        while waiting:
            for name in neighbours(waiting.pop()):
                if name not in found and (through is None or through(self._view.nodes[name])):
                    found.add(name)
                    waiting.append(name)
        return found


def _comes_from_outside(node: Any) -> bool:
    return node.op.startswith(("Placeholder", "Iterator", "Infeed", "Parse", "Decode"))
