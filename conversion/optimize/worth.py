"""Which values are worth computing ahead: those that do not make the bundle larger."""

from __future__ import annotations

from collections import defaultdict
from typing import Dict, FrozenSet, Iterator, List, Sequence, Set

from conversion.graphs.constants import MOST_NODES
from conversion.graphs.graph import Edge
from conversion.optimize.static_values import (
    SLACK_BYTES,
    Source,
    Static,
    data_edges,
    source_of,
)


def chosen(static: Static, constants_alone: bool = False) -> List[Edge]:
    """The tensors to compute ahead.

    A value is as large as what it is computed of at most (`Static.fits`), and all values of the
    same sources together as those of them that nothing reads any more. Where a value is not worth
    it, such as a vector repeated for each row, the values that it is computed of may be.

    Args:
        constants_alone: leave what depends on variables.
    """
    kept: Set[Source] = set()
    while True:
        edges = [
            edge
            for edge in _values(static, kept)
            if not (constants_alone and static.variables(edge.node))
        ]
        more = _overspent(static, edges)
        if not more:
            return edges
        kept |= more


def _values(static: Static, kept: Set[Source]) -> Iterator[Edge]:
    """Those that nodes read that are not static, or in their place what they are computed of.

    Args:
        kept: the sources that stay as they are: a value of them would be kept beside them.
    """
    seen: Set[Edge] = set()
    waiting = [
        edge
        for node in static.view.graph_def.node
        if node.name not in static.names
        for edge in data_edges(node)
    ][::-1]
    while waiting:
        edge = waiting.pop()
        if edge in seen or edge not in static or edge.node not in static.works:
            continue
        seen.add(edge)
        beside = edge.node not in static.from_folds and static.sources[edge.node] & kept
        if not beside and edge.node not in static.view.roots and _fits(static, edge):
            yield edge
        else:
            waiting += data_edges(static.view.nodes[edge.node])


def _fits(static: Static, edge: Edge) -> bool:
    """In size; and of constants in nodes, of which only so many are computed."""
    few = static.variables(edge.node) or len(static.cone(edge.node, MOST_NODES + 1)) <= MOST_NODES
    return bool(few) and static.fits(edge)


def _overspent(static: Static, edges: Sequence[Edge]) -> Set[Source]:
    """The sources of values that together are larger than what is then not read.

    What a fold made is not among these values: it takes the place of weights of its own.
    """
    read = _still_read(static, set(edges))
    found: Set[Source] = set()
    for group in _groups(static, edges):
        sources = {source for edge in group for source in _large(static, edge)}
        made = sum(static.sizes_bytes(edge)[0] for edge in group)
        freed = sum(static.source_bytes[source] for source in sources - read)
        if made > freed + SLACK_BYTES:
            free = [edge for edge in group if edge.node not in static.from_folds]
            found.update(source for edge in free for source in _large(static, edge))
    return found


def _still_read(static: Static, moved: Set[Edge]) -> Set[Source]:
    """What the outputs are computed of, where some tensors are read and not computed."""
    nodes = static.view.nodes
    waiting = [name for name in static.view.roots if name in nodes]
    seen: Set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            inputs = map(Edge.parse, nodes[name].input)
            waiting += [edge.node for edge in inputs if edge not in moved]
    return {source for source in map(source_of, map(nodes.__getitem__, seen)) if source}


def _groups(static: Static, edges: Sequence[Edge]) -> List[List[Edge]]:
    """Values that share large sources, also by way of others; without any, none."""
    readers: Dict[Source, List[Edge]] = defaultdict(list)
    for edge in edges:
        for source in _large(static, edge):
            readers[source].append(edge)
    groups: List[List[Edge]] = []
    seen: Set[Source] = set()
    for first in sorted(readers):
        waiting: List[Source] = [first]
        group: Dict[Edge, None] = {}
        while waiting:
            source = waiting.pop()
            if source not in seen:
                seen.add(source)
                group.update(dict.fromkeys(readers[source]))
                waiting += [one for edge in readers[source] for one in _large(static, edge)]
        groups += [list(group)] if group else []
    return groups


def _large(static: Static, edge: Edge) -> FrozenSet[Source]:
    """The sources that are more than the slack; small ones may be kept beside their values."""
    sources = static.sources[edge.node]
    return frozenset(one for one in sources if static.source_bytes[one] > SLACK_BYTES)
