"""Conditionals whose predicate is a constant -> the branch that is taken."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.constants import constant_value
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied, with_nodes
from conversion.surgery.rewrite import Rewrite, become_identity

CALLS = {"If": "StatefulPartitionedCall", "StatelessIf": "PartitionedCall"}
OF_BRANCHES = ("then_branch", "else_branch", "Tcond", "output_shapes", "_lower_using_switch_merge")
SAME = ("Identity", "Enter", "Switch")  # where something comes out of a Switch, it is its input
INDEX = "/value_index"  # behind the name of a Merge


def constant_branches(view: GraphView) -> Tuple[Any, int]:
    """Keras layers build both phases, dropout included, behind a phase that nothing feeds.

    A branch is dead, and goes, with all that needs a dead tensor; a Merge ends it.
    """
    graph_def, functional = _call_branches(view.graph_def)
    nodes = {node.name: node for node in graph_def.node}
    switches = [node for node in graph_def.node if node.op == "Switch"]
    asked = {node.input[1] for node in switches}  # once each: a layer's switches share theirs
    view = GraphView(graph_def, view.roots)
    predicates = {text: value(view, text) for text in asked}
    known = {text: found for text, found in predicates.items() if found is not None}
    taken = {node.name: known[node.input[1]] for node in switches if node.input[1] in known}
    unfed = {Edge(name, 0 if taken[name] else 1) for name in taken}
    dead = _dead(nodes, unfed)
    if not taken or dead & set(view.roots):
        return graph_def, functional
    chosen = {
        name: live[0]
        for name, node in nodes.items()
        if node.op == "Merge" and name not in dead
        for live in [_live(node, dead, unfed)]
        if len(live) == 1
    }
    made = [_settled(node, taken, chosen) for name, node in nodes.items() if name not in dead]
    return with_nodes(graph_def, made + list(_indices(graph_def, chosen))), functional + len(taken)


def value(view: GraphView, text: str) -> Optional[bool]:
    """What a boolean scalar always is; None when that depends on what is fed."""
    node = view.nodes.get(text.partition(":")[0])
    if node is None or text.startswith("^"):
        return None
    if node.op in SAME:
        return value(view, node.input[0])
    if node.op not in ("LogicalNot", "LogicalAnd", "LogicalOr"):
        return _computed(view, text)
    inputs = [value(view, text) for text in node.input if not text.startswith("^")]
    if node.op == "LogicalNot":
        return None if inputs[0] is None else not inputs[0]
    decides = node.op == "LogicalOr"  # one True is enough, as one False is for And
    if decides in inputs:
        return decides
    return None if None in inputs else not decides


def _computed(view: GraphView, text: str) -> Optional[bool]:
    """What constants make it, such as `rate > 0`."""
    try:
        found = constant_value(view, Edge.parse(text))
    except tf.errors.OpError:  # of constants that no CPU computes with, as those of bfloat16
        return None
    return bool(found) if found is not None and found.ndim == 0 and found.dtype == bool else None


def _dead(nodes: Mapping[str, Any], edges: Set[Edge]) -> Set[str]:
    """Names of the nodes that never run, because of edges that never carry anything."""
    readers: Dict[str, List[str]] = {}
    for node in nodes.values():
        for text in node.input:
            readers.setdefault(Edge.parse(text).node, []).append(node.name)
    found: Set[str] = set()
    waiting = [reader for edge in edges for reader in readers.get(edge.node, ())]
    while waiting:
        node = nodes[waiting.pop()]
        if node.name not in found and _never_runs(node, found, edges, nodes):
            found.add(node.name)
            waiting += readers.get(node.name, ())
    return found


def _never_runs(node: Any, dead: Set[str], edges: Set[Edge], nodes: Mapping[str, Any]) -> bool:
    inputs = [Edge.parse(text) for text in node.input]
    gone = [edge.node in dead or edge in edges for edge in inputs]
    if node.op != "Merge":
        return any(gone)
    first = [
        is_gone
        for edge, is_gone in zip(inputs, gone)
        if edge.index != CONTROL and nodes[edge.node].op != "NextIteration"
    ]
    return all(first)  # what comes round a loop starts with what enters it


def _live(merge: Any, dead: Set[str], unfed: Set[Edge]) -> List[int]:
    """Which inputs of a Merge may carry something."""
    edges = [Edge.parse(text) for text in merge.input if not text.startswith("^")]
    return [i for i, edge in enumerate(edges) if edge.node not in dead and edge not in unfed]


def _settled(node: Any, taken: Mapping[str, bool], chosen: Mapping[str, int]) -> Any:
    """A live node; switches and merges with nothing left to decide become identities."""
    made = tf.NodeDef()
    made.CopyFrom(node)
    if node.name in chosen:
        data = made.input[chosen[node.name]]
        made.input[:] = [data] + [text for text in node.input if text.startswith("^")]
    if node.name in taken or node.name in chosen:
        become_identity(made, node.attr["T"].type)
    made.input[:] = [_edge(text, taken, chosen) for text in made.input]
    return made


def _edge(text: str, taken: Mapping[str, bool], chosen: Mapping[str, int]) -> str:
    edge = Edge.parse(text)
    if edge.node in taken and edge.index != CONTROL:
        return edge.node
    return edge.node + INDEX if edge.node in chosen and edge.index == 1 else text


def _indices(graph_def: Any, chosen: Mapping[str, int]) -> Iterator[Any]:
    """Which input a Merge took, a constant now, for those who read that."""
    read = {text for node in graph_def.node for text in node.input}
    for name, index in chosen.items():
        if f"{name}:1" in read:
            made = tf.NodeDef(name=name + INDEX, op="Const", input=["^" + name])
            made.attr["dtype"].type = tf.int32.as_datatype_enum
            made.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(index, tf.int32))
            yield made


def _call_branches(graph_def: Any) -> Tuple[Any, int]:
    """`If` with a constant predicate becomes a call of its branch, in functions as well."""
    made, count = copied(graph_def), 0
    for body in [made.node, *(function.node_def for function in made.library.function)]:
        conditionals = [node for node in body if node.op in CALLS]
        view = GraphView(tf.GraphDef(node=body if conditionals else ()))
        for node in conditionals:
            predicate = value(view, node.input[0])
            if predicate is None:
                continue
            branch = node.attr["then_branch" if predicate else "else_branch"].func
            node.attr["f"].func.CopyFrom(branch)
            for name in OF_BRANCHES:
                node.attr.pop(name, None)
            node.op = CALLS[node.op]
            del node.input[0]
            count += 1
    return (made, count) if count else (graph_def, 0)


REWRITE = Rewrite(
    name="constant_branches",
    does="takes the branch of a conditional whose predicate is a constant, such as Keras's phase",
    run=constant_branches,
)
