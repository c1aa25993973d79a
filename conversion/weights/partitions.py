"""Graph variables that are partitions (`m/emb/part_0`) of one variable of the checkpoint."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Callable, Dict, List, Mapping, Tuple

from conversion.weights.slices import Shape, parts_along_axis
from conversion.weights.specs import GraphVariable, VariableSpec


def with_parts(
    graph: Tuple[GraphVariable, ...],
    checkpoint: Mapping[str, VariableSpec],
    target: Callable[[str], str],
) -> Tuple[GraphVariable, ...]:
    """The graph's variables; partitions without a saver get the slice that they are.

    A graph's saver says which slices it restores. Without one, parts 0 to n-1 that together
    have the shape of the checkpoint's variable of their name leave nothing to guess.

    Args:
        checkpoint: variables by the name that they have after renames.
        target: that name, of a name.
    """
    found: Dict[str, GraphVariable] = {}
    for base, parts in _families(graph).items():
        spec = checkpoint.get(target(base))
        if spec is None or spec.shape is None:
            continue
        shapes: List[Shape] = [tuple(size or 0 for size in one.spec.shape or ()) for one in parts]
        full: Shape = tuple(size or 0 for size in spec.shape)
        for one, part in zip(parts, parts_along_axis(full, shapes)):
            found[one.spec.name] = replace(one, key=base, part=part)
    return tuple(found.get(one.spec.name, one) for one in graph)


def _families(graph: Tuple[GraphVariable, ...]) -> Dict[str, List[GraphVariable]]:
    """Partitions in their order, by the name of what they are parts of."""
    parts: Dict[str, Dict[int, GraphVariable]] = {}
    for one in graph:
        name = re.fullmatch(r"(.+)/part_(\d+)", one.key)
        if name and one.part is None:
            parts.setdefault(name.group(1), {})[int(name.group(2))] = one
    return {
        base: [numbered[index] for index in range(len(numbered))]
        for base, numbered in parts.items()
        if sorted(numbered) == list(range(len(numbered)))
    }
