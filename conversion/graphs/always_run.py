"""Loops and branches of TF 1 in one body -> the nodes that run once whenever the body does."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Iterable, Iterator, Mapping, NamedTuple, Set, Tuple

from conversion.graphs.frames import ENTERS, EXITS, readers
from conversion.graphs.graph import CONTROL, Edge

SWITCHES = ("Switch", "RefSwitch")
MERGES = ("Merge", "RefMerge")
ROUND = ("NextIteration", "RefNextIteration")


class _Place(NamedTuple):
    """The loops and the branches, as `(predicate, which)`, that a node is in."""

    frames: Tuple[str, ...]
    branches: FrozenSet[Tuple[str, int]]


OUTSIDE = _Place((), frozenset())


def always_run(nodes: Iterable[Any]) -> Set[str]:
    """Names of the nodes that are in no loop and in no branch.

    Behind a Merge, a node is in the branches that all inputs of the Merge are in: in none, unless
    the whole conditional is inside of another one.
    """
    by_name = {node.name: node for node in nodes}
    places: Dict[str, _Place] = {}
    for node in _in_order(by_name):
        before = [
            _behind(by_name, edge, places)
            for edge in map(Edge.parse, node.input)
            if edge.node in by_name and by_name[edge.node].op not in ROUND
        ]
        places[node.name] = _place(node, before)
    return {name for name, place in places.items() if place == OUTSIDE}


def _place(node: Any, before: Iterable[_Place]) -> _Place:
    """Of a node that reads from some places."""
    before = list(before) or [OUTSIDE]
    frames = max((place.frames for place in before), key=len)
    if node.op in ENTERS:
        frames += (node.attr["frame_name"].s.decode(),)
    elif node.op in EXITS:
        frames = frames[:-1]
    branches = [place.branches for place in before]
    joined = frozenset.intersection if node.op in MERGES else frozenset.union
    return _Place(frames, joined(*branches))


def _behind(by_name: Mapping[str, Any], edge: Edge, places: Mapping[str, _Place]) -> _Place:
    """Where a reader of an edge is: behind a conditional's Switch, in one more branch."""
    node, place = by_name[edge.node], places[edge.node]
    if node.op not in SWITCHES or edge.index == CONTROL:
        return place
    predicate = Edge.parse(node.input[1])
    if predicate.node in by_name and by_name[predicate.node].op == "LoopCond":
        return place
    return _Place(place.frames, place.branches | {(str(predicate), edge.index)})


def _in_order(by_name: Mapping[str, Any]) -> Iterator[Any]:
    """Each node behind those that it reads, but for what comes round a loop."""
    waits_for = {
        name: {edge for edge in (Edge.parse(text).node for text in node.input) if edge in by_name}
        for name, node in by_name.items()
    }
    for name, sources in waits_for.items():
        waits_for[name] = {one for one in sources if by_name[one].op not in ROUND}
    read_by = readers(by_name.values())
    ready = [name for name, sources in waits_for.items() if not sources]
    while ready:
        name = ready.pop()
        yield by_name[name]
        for reader in read_by.get(name, ()):
            if name in waits_for[reader]:
                waits_for[reader].remove(name)
                if not waits_for[reader]:
                    ready.append(reader)
