"""An index over a GraphDef and its function library: edges, reachability, integrity. Pure."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Set, Tuple

from batchinfer.errors import ConversionError
from batchinfer.tf1 import tf

CONTROL = -1


class Edge(NamedTuple):
    """The output of a node that another node reads; index -1 is a control edge."""

    node: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing here needs

    @classmethod
    def parse(cls, text: str) -> Edge:
        """`a`, `a:1` or `^a`, as GraphDef writes them."""
        if text.startswith("^"):
            return cls(text[1:], CONTROL)
        node, colon, index = text.rpartition(":")
        return cls(node, int(index)) if colon else cls(text, 0)

    def __str__(self) -> str:
        if self.index == CONTROL:
            return "^" + self.node
        return self.node if self.index == 0 else f"{self.node}:{self.index}"


class GraphView:
    """A GraphDef that can be asked; it is never changed.

    Attributes:
        graph_def: what is looked at.
        roots: names of the nodes that must stay: outputs, and initialisers of tables.
        nodes: the main graph's nodes by name.
        functions: the library's functions by name.
    """

    def __init__(self, graph_def: Any, roots: Iterable[str] = ()) -> None:
        self.graph_def = graph_def
        self.roots = tuple(roots)
        self.nodes: Dict[str, Any] = {node.name: node for node in graph_def.node}
        self.functions: Dict[str, Any] = {
            function.signature.name: function for function in graph_def.library.function
        }

    def reachable(self) -> Set[str]:
        """Names of the nodes that the roots need, control edges included."""
        found: Set[str] = set()
        waiting = [root for root in self.roots if root in self.nodes]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += [Edge.parse(text).node for text in self.nodes[name].input]
        return found

    def reachable_functions(self) -> Set[str]:
        """Names of the functions that the main graph's nodes call, also through others."""
        found: Set[str] = set()
        waiting = [name for node in self.graph_def.node for name in self.called_by(node)]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                body = self.functions[name].node_def
                waiting += [called for node in body for called in self.called_by(node)]
        return found

    def called_by(self, node: Any) -> List[str]:
        """Names of the library functions that a node calls by op name or by attribute."""
        named = [node.op]
        for attr in node.attr.values():
            named.append(attr.func.name)
            named += [func.name for func in attr.list.func]
        return [name for name in named if name in self.functions]

    def data_consumed(self) -> Set[str]:
        """Names of the nodes of the main graph of which some node reads a tensor."""
        edges = (Edge.parse(text) for node in self.graph_def.node for text in node.input)
        return {edge.node for edge in edges if edge.index != CONTROL}


def every_node(graph_def: Any) -> Iterator[Tuple[str, Any]]:
    """Each node of the main graph ("") and of each function (its name)."""
    for node in graph_def.node:
        yield "", node
    for function in graph_def.library.function:
        for node in function.node_def:
            yield function.signature.name, node


def changed(graph_def: Any, change: Callable[[Any], bool]) -> Tuple[Any, int]:
    """A copy in which `change` was called on every node; counts where it said True."""
    copy = copied(graph_def)
    return copy, sum(bool(change(node)) for _, node in every_node(copy))


def copied(graph_def: Any) -> Any:
    copy = tf.GraphDef()
    copy.CopyFrom(graph_def)
    return copy


def with_nodes(graph_def: Any, nodes: Iterable[Any]) -> Any:
    """The same library and versions with other nodes."""
    made = tf.GraphDef(versions=graph_def.versions, library=graph_def.library)
    made.node.extend(nodes)
    return made


def close_names(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the names nearest to a wrong one."""
    near = difflib.get_close_matches(name, list(known), n=5, cutoff=0.4)
    return f"nearest: {', '.join(near)}" if near else "nothing there has a similar name"


def check(graph_def: Any, after: str) -> None:
    """Refuse a graph that TensorFlow would not import.

    Args:
        after: the rewrite that gave the graph, for the message.

    Raises:
        ConversionError: duplicate names, inputs that no node gives, data after control
            inputs, or a cycle that no loop closes; all of them are listed.
    """
    names = Counter(node.name for node in graph_def.node)
    problems = [f"two nodes named {name}" for name, count in names.items() if count > 1]
    for node in graph_def.node:
        edges = [Edge.parse(text) for text in node.input]
        problems += [
            f"{node.name} reads {edge}, which is not there"
            for edge in edges
            if edge.node not in names
        ]
        control = [edge.index == CONTROL for edge in edges]
        if control != sorted(control):
            problems.append(f"{node.name} reads a tensor after a control edge")
    problems = problems or [f"cycle through {name}" for name in _on_cycles(graph_def)]
    if problems:
        raise ConversionError(
            f"after rewrite `{after}` the graph is broken in {len(problems)} place(s):\n  "
            + "\n  ".join(problems[:20])
            + "\nThis is a fault of the converter, not of the model; nothing was written."
        )


def _on_cycles(graph_def: Any) -> List[str]:
    """Nodes that stay when those without open inputs are taken away one by one.

    A loop of TF 1 is closed by a NextIteration node, whose inputs therefore do not count.
    """
    inputs = {
        node.name: {Edge.parse(text).node for text in node.input}
        for node in graph_def.node
        if node.op not in ("NextIteration", "RefNextIteration")
    }
    readers: Dict[str, List[str]] = {}
    for name, read in inputs.items():
        for source in read:
            readers.setdefault(source, []).append(name)
    open_inputs = {name: len(read) for name, read in inputs.items()}
    ready = [node.name for node in graph_def.node if not open_inputs.get(node.name)]
    while ready:
        for reader in readers.get(ready.pop(), ()):
            open_inputs[reader] -= 1
            if not open_inputs[reader]:
                ready.append(reader)
    return [name for name, count in open_inputs.items() if count]
