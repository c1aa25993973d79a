"""A graph -> which of its nodes depend on variables and constants alone, and what they read."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Optional, Set, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graft import inferred
from conversion.graphs.graph import CONTROL, Edge, GraphView
from conversion.tf_internals import attr_value
from conversion.weights.variable_copy import GROUP_BYTES
from conversion.weights.variables import variable_name

SOURCES = frozenset(("Const", "VarHandleOp", "ReadVariableOp"))
# Ops that give their input's values in another shape, for nothing.
FREE = frozenset(("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient"))
# Ops that always give the same of the same, and neither fail nor wait: what is not here stays.
PURE = SOURCES | FREE | frozenset(
    ("Abs", "Add", "AddN", "AddV2", "Cast", "ConcatV2", "Div", "Exp", "Fill", "GatherV2", "Log",
     "Log1p", "Max", "Maximum", "Min", "Minimum", "Mul", "Neg", "Pack", "Pad", "PadV2", "Pow",
     "RealDiv", "Reciprocal", "Relu", "ReverseV2", "Rsqrt", "Sigmoid", "Slice", "Split", "SplitV",
     "Sqrt", "Square", "SquaredDifference", "StridedSlice", "Sub", "Tanh", "Tile", "Transpose",
     "Unpack", "ZerosLike", "OnesLike")
)  # fmt: skip
# Ops that add up many numbers, in an order that depends on how many threads share them: of floats
# the last bits differ from machine to machine, and the same source has to give the same bundle.
SUMMING = frozenset(("BatchMatMul", "BatchMatMulV2", "MatMul", "Mean", "Prod", "Softmax", "Sum"))
FLOATS = (tf.float32, tf.float16)
SLACK_BYTES = 4096  # by which a result may be larger than what it is computed of


class Static:
    """The nodes of a main graph whose values are the same in every run.

    A node in a loop or a branch is none of them: it reads an Enter or a Switch, or waits for one
    through a control edge.

    Attributes:
        view: the graph.
        names: of the nodes.
    """

    def __init__(self, view: GraphView) -> None:
        self.view = view
        self._graph = inferred(view.graph_def)
        self.readers: Dict[str, List[str]] = {}
        for node in view.graph_def.node:
            for source in _sources(node):
                self.readers.setdefault(source, []).append(node.name)
        self.names = self._found()
        self._users: Dict[str, Set[str]] = {}
        self._sources_of: Dict[str, FrozenSet[str]] = {}

    def _found(self) -> FrozenSet[str]:
        waiting = {node.name: len(_sources(node)) for node in self.view.graph_def.node}
        ready = [name for name, count in waiting.items() if not count]
        found: Set[str] = set()
        while ready:
            name = ready.pop()
            if not _is_pure(self.view.nodes[name]):
                continue
            found.add(name)
            for reader in self.readers.get(name, ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        return frozenset(found)

    def __contains__(self, edge: Edge) -> bool:
        return edge.node in self.names

    def tensor(self, edge: Edge) -> Any:
        """As TensorFlow infers it: dtype and shape."""
        return self._graph.get_operation_by_name(edge.node).outputs[edge.index]

    def dims(self, edge: Edge) -> Optional[Tuple[int, ...]]:
        """The shape, where all of it is known."""
        shape = self.tensor(edge).shape
        return tuple(shape.as_list()) if shape.is_fully_defined() else None

    def cone(self, name: str) -> Set[str]:
        """The nodes that a static node's value is computed of, itself included."""
        found: Set[str] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += _sources(self.view.nodes[one])
        return found

    def variables(self, cone: Set[str]) -> FrozenSet[str]:
        """Names of the variables among what is read."""
        nodes = [self.view.nodes[name] for name in cone]
        return frozenset(variable_name(node) for node in nodes if node.op == "VarHandleOp")

    def fits(self, edge: Edge) -> bool:
        """Whether a value is worth keeping in place of what it is computed of.

        It is as large at most, and both fit into the memory that copying variables takes; so
        that no large table is computed ahead, and none is kept twice.
        """
        dims = self.dims(edge)
        if dims is None or self.tensor(edge).dtype not in FLOATS:
            return False
        made, read = self.sizes_bytes(edge)
        return made <= read + SLACK_BYTES and made + read <= GROUP_BYTES

    def sizes_bytes(self, edge: Edge) -> Tuple[int, int]:
        """Of a value whose shape is known, and of what it is computed of."""
        made = volume(self.dims(edge) or ()) * (self.tensor(edge).dtype.size or 0)
        return made, sum(self._read_bytes(name) for name in self.cone(edge.node))

    def users(self, edge: Edge) -> Set[str]:
        """The nodes, not static themselves, for which the sources of a value are read."""
        if not self._users:
            self._find_users()
        sources = self._weights(edge.node)
        return {user for source in sources for user in self._users.get(source, ())}

    def _find_users(self) -> None:
        for node in self.view.graph_def.node:
            for edge in data_edges(node) if node.name not in self.names else ():
                for source in self._weights(edge.node) if edge in self else ():
                    self._users.setdefault(source, set()).add(node.name)

    def _weights(self, name: str) -> FrozenSet[str]:
        """The variables, or without any the largest constant, that a value is computed of."""
        if name not in self._sources_of:
            cone = self.cone(name)
            constants = sorted(one for one in cone if self.view.nodes[one].op == "Const")
            largest = max(constants, key=self._read_bytes, default="")
            self._sources_of[name] = self.variables(cone) or frozenset([largest])
        return self._sources_of[name]

    def reads_more_than_first(self, name: str) -> bool:
        """Whether some node reads another tensor of a node than its first."""
        readers = [self.view.nodes[one] for one in self.readers.get(name, ())]
        edges = [edge for node in readers for edge in data_edges(node)]
        return any(edge.node == name and edge.index > 0 for edge in edges)

    def _read_bytes(self, name: str) -> int:
        """Of a variable that is read, or of a constant, the size; of other nodes nothing."""
        if self.view.nodes[name].op not in ("ReadVariableOp", "Const"):
            return 0
        edge = Edge(name, 0)
        dims, dtype = self.dims(edge), self.tensor(edge).dtype
        return GROUP_BYTES if dims is None else volume(dims) * (dtype.size or 0)


def _is_pure(node: Any) -> bool:
    """Whole numbers add up to the same in every order."""
    if node.op in SUMMING:
        return bool(tf.as_dtype(attr_value(node, "T").type).is_integer)
    return node.op in PURE


def volume(dims: Tuple[int, ...]) -> int:
    found = 1
    for size in dims:
        found *= size
    return found


def data_edges(node: Any) -> List[Edge]:
    """The tensors that a node reads."""
    return [edge for edge in map(Edge.parse, node.input) if edge.index != CONTROL]


def _sources(node: Any) -> Set[str]:
    """The nodes that a node reads or waits for."""
    return {Edge.parse(text).node for text in node.input}
