"""A graph -> which of its nodes depend on variables and constants alone, and what they read."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, Optional, Set, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graft import inferred
from conversion.graphs.graph import CONTROL, Edge, GraphView
from conversion.optimize.kinds import FREE, SOURCES, is_pure
from conversion.optimize.nodes import FOLDED
from conversion.weights.variable_copy import GROUP_BYTES
from conversion.weights.variables import variable_name

FLOATS = (tf.float32, tf.float16)
Source = Tuple[str, str]  # kind and name
VARIABLE = "variable"
NONE: Source = ("constant", "")
SLACK_BYTES = 4096  # by which a result may be larger than what it is computed of


class Static:
    """The nodes of a main graph whose values are the same in every run.

    A node in a loop or a branch is none of them: it reads an Enter or a Switch, or waits for one
    through a control edge.

    Attributes:
        view: the graph.
        names: of the nodes.
        sources: by node, the variables and constants that it is computed of; of constants only
            those of more than one number.
        source_bytes: sizes of the sources.
        works: the nodes that compute something, or read what does.
        from_folds: the nodes that `batch_norm` made, and those that read them.
    """

    def __init__(self, view: GraphView) -> None:
        self.view = view
        self._graph = inferred(view.graph_def)
        self.readers: Dict[str, List[str]] = {}
        self._inputs = {node.name: _inputs(node) for node in view.graph_def.node}
        for name, inputs in self._inputs.items():
            for source in inputs:
                self.readers.setdefault(source, []).append(name)
        self._users: Dict[Source, Set[str]] = {}
        self.source_bytes: Dict[Source, int] = {}
        self.sources: Dict[str, FrozenSet[Source]] = {}
        self.works: Set[str] = set()
        self.from_folds: Set[str] = set()
        for name in self._found():
            self._trace(name)
        self.names = frozenset(self.sources)

    def _found(self) -> List[str]:
        """The static nodes, each after what it is computed of."""
        waiting = {name: len(inputs) for name, inputs in self._inputs.items()}
        ready = [name for name, count in waiting.items() if not count]
        found: List[str] = []
        while ready:
            name = ready.pop()
            if not is_pure(self.view.nodes[name]):
                continue
            found.append(name)
            for reader in self.readers.get(name, ()):
                waiting[reader] -= 1
                if not waiting[reader]:
                    ready.append(reader)
        return found

    def _trace(self, name: str) -> None:
        """Of a node whose inputs were traced: a set that nothing was added to is not made again."""
        node, inputs = self.view.nodes[name], self._inputs[name]
        sets = [self._own_source(node), *(self.sources[one] for one in inputs)]
        largest = max(sets, key=len)
        same = all(one is largest or one <= largest for one in sets)
        self.sources[name] = largest if same else largest.union(*sets)
        if node.op not in SOURCES | FREE or inputs & self.works:
            self.works.add(name)
        if name.rpartition("/")[2].startswith(FOLDED) or inputs & self.from_folds:
            self.from_folds.add(name)

    def _own_source(self, node: Any) -> FrozenSet[Source]:
        """A variable, whatever the number of its handles, or a constant; of other nodes none."""
        source = source_of(node)
        if source is None:
            return frozenset()
        if node.op == "VarHandleOp":
            shape = tf.TensorShape(node.attr["shape"].shape)
            dims = tuple(shape.as_list()) if shape.is_fully_defined() else None
        else:
            dims = self.dims(Edge(node.name, 0))
        if node.op == "Const" and dims is not None and volume(dims) <= 1:
            return frozenset()  # of which a graph has many
        size = tf.as_dtype(node.attr["dtype"].type).size or 0
        self.source_bytes[source] = GROUP_BYTES if dims is None else volume(dims) * size
        return frozenset([source])

    def __contains__(self, edge: Edge) -> bool:
        return edge.node in self.names

    def tensor(self, edge: Edge) -> Any:
        """As TensorFlow infers it: dtype and shape."""
        return self._graph.get_operation_by_name(edge.node).outputs[edge.index]

    def dims(self, edge: Edge) -> Optional[Tuple[int, ...]]:
        """The shape, where all of it is known."""
        shape = self.tensor(edge).shape
        return tuple(shape.as_list()) if shape.is_fully_defined() else None

    def cone(self, name: str, most: Optional[int] = None) -> Set[str]:
        """The nodes that a static node's value is computed of, itself included.

        Args:
            most: nodes to look at.
        """
        found: Set[str] = set()
        waiting = [name]
        while waiting and (most is None or len(found) < most):
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self._inputs[one]
        return found

    def variables(self, name: str) -> FrozenSet[str]:
        """Names of the variables that a static node's value is computed of."""
        return frozenset(text for kind, text in self.sources[name] if kind == VARIABLE)

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
        return made, sum(self.source_bytes[one] for one in self.sources[edge.node])

    def users(self, edge: Edge) -> Set[str]:
        """The nodes, not static themselves, for which the sources of a value are read."""
        if not self._users:
            self._find_users()
        sources = self._weights(edge.node)
        return {user for source in sources for user in self._users.get(source, ())}

    def _find_users(self) -> None:
        for node in self.view.graph_def.node:
            if node.name in self.names:
                continue
            own = source_of(node)
            if own is not None:  # such as another handle of the variable, in a branch
                self._users.setdefault(own, set()).add(node.name)
            for edge in data_edges(node):
                for source in self._weights(edge.node) if edge in self else ():
                    self._users.setdefault(source, set()).add(node.name)

    def _weights(self, name: str) -> FrozenSet[Source]:
        """The variables, or without any the largest constant, that a value is computed of."""
        variables = frozenset(one for one in self.sources[name] if one[0] == VARIABLE)
        largest = max(sorted(self.sources[name]), key=self.source_bytes.__getitem__, default=NONE)
        return variables or frozenset([largest])

    def reads_more_than_first(self, name: str) -> bool:
        """Whether some node reads another tensor of a node than its first."""
        readers = [self.view.nodes[one] for one in self.readers.get(name, ())]
        edges = [edge for node in readers for edge in data_edges(node)]
        return any(edge.node == name and edge.index > 0 for edge in edges)


def source_of(node: Any) -> Optional[Source]:
    """The variable of a handle, by the name that its handles share, or the constant."""
    if node.op == "VarHandleOp":
        return VARIABLE, variable_name(node)
    return ("constant", node.name) if node.op == "Const" else None


def volume(dims: Tuple[int, ...]) -> int:
    found = 1
    for size in dims:
        found *= size
    return found


def data_edges(node: Any) -> List[Edge]:
    """The tensors that a node reads."""
    return [edge for edge in map(Edge.parse, node.input) if edge.index != CONTROL]


def _inputs(node: Any) -> Set[str]:
    """The nodes that a node reads or waits for."""
    return {Edge.parse(text).node for text in node.input}
