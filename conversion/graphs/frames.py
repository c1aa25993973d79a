"""Loops and branches of TF 1 (Enter, Exit, Switch, Merge): which nodes are inside of them."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Set, Tuple

from conversion.graphs.graph import Edge

GUARDS = ("Switch", "RefSwitch", "Enter", "RefEnter")
ENTERS = ("Enter", "RefEnter")
EXITS = ("Exit", "RefExit")


def guarded(nodes: Iterable[Any]) -> Set[str]:
    """Names of the nodes behind a Switch or an Enter.

    Only these can be left out by a branch, or run once per iteration. Nodes behind the end of
    a branch or loop are among them, which costs nothing but a few nodes.
    """
    nodes = list(nodes)
    return behind(nodes, [node.name for node in nodes if node.op in GUARDS])


def behind(nodes: Iterable[Any], names: Iterable[str]) -> Set[str]:
    """The nodes of some names, and all that need them, also through control edges."""
    read_by = readers(nodes)
    found: Set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += read_by.get(name, ())
    return found


def frame_stacks(nodes: Iterable[Any]) -> Dict[str, Tuple[str, ...]]:
    """The loops around each node, by the names of their frames, the outermost first.

    TensorFlow runs no node whose inputs are from different frames, so that one input tells
    the frame of a node. An Enter is counted to the frame that it enters.
    """
    nodes = list(nodes)
    by_name = {node.name: node for node in nodes}
    read_by = readers(nodes)
    found: Dict[str, Tuple[str, ...]] = {}
    waiting: List[Tuple[str, Tuple[str, ...]]] = [
        (node.name, ()) for node in nodes if not node.input
    ]
    while waiting:
        name, outside = waiting.pop()
        if name in found:
            continue
        node = by_name[name]
        found[name] = outside
        if node.op in ENTERS:
            found[name] = outside + (node.attr["frame_name"].s.decode(),)
        inside = found[name][:-1] if node.op in EXITS else found[name]
        waiting += [(reader, inside) for reader in read_by.get(name, ())]
    return found


def readers(nodes: Iterable[Any]) -> Dict[str, List[str]]:
    """Names of the nodes that read each node, once per edge."""
    found: Dict[str, List[str]] = {}
    for node in nodes:
        for text in node.input:
            found.setdefault(Edge.parse(text).node, []).append(node.name)
    return found
