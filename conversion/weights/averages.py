"""Raw weights or their moving averages: an explicit choice, with what each would cover."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from conversion.weights.shadows import AVERAGE, UNKNOWN, Shadow
from conversion.weights.slices import axis_of, covers
from conversion.weights.specs import GraphVariable, Piece, VariableSpec, WeightsUsed
from conversion.weights.steps import Concat, Step

_BATCH_STATISTICS = re.compile(r"(.*/)?moving_(mean|variance)(/part_\d+)?")

NO_TRANSFORMS: Mapping[str, Sequence[str]] = MappingProxyType({})

# The pieces and steps that make a variable's average; a transform has its own steps.
Averaged = Tuple[Tuple[Piece, ...], Tuple[Step, ...]]


@dataclass(frozen=True)
class Choice:
    """What the choice of weights means for each variable.

    Attributes:
        used: for the manifest.
        averaged: pieces and steps of the variables that get their average, by name.
        keys: checkpoint names that replace the saver's, by variable name.
        problem: what has to be decided first; "" when nothing.
    """

    used: WeightsUsed
    averaged: Mapping[str, Averaged] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


def choose_weights(
    graph: Sequence[GraphVariable],
    checkpoint: Iterable[VariableSpec],
    shadows: Mapping[str, Shadow],
    target: Callable[[str], str],
    wanted: Optional[str],
    transforms: Mapping[str, Sequence[str]] = NO_TRANSFORMS,
) -> Choice:
    """Which variables get their moving average.

    One known model evaluates with averages and exports raw weights, 0.93 apart: so nothing is
    guessed. The graph's own saver counts as its owner's choice, unless another is asked for.

    Args:
        target: the name that a checkpoint's variable has after the user's renames.
        wanted: "raw", "ema", or None when nobody chose.
        transforms: checkpoint names that a transform reads, by the variable that it makes. The
            saver's names do not count for these; one that is itself an average stays.
    """
    mapped = {one.spec.name: shadows[one.key] for one in graph if _is_average(shadows, one)}
    by_saver = {name: shadow for name, shadow in mapped.items() if name not in transforms}
    own = {target(one.key) for one in graph if one.spec.name not in mapped}
    others = [shadow for name, shadow in shadows.items() if target(name) not in own]
    candidates = _candidates(others, target)
    names = tuple(variable.spec.name for variable in graph)
    sources = {name: _sources(read, shadows, candidates, target)
               for name, read in transforms.items()}  # fmt: skip
    asked = {name: _not_named(groups, transforms[name]) for name, groups in sources.items()}
    asked = {name: group for name, group in asked.items() if group}
    if wanted is None and by_saver and not asked:
        return Choice(_used("saver", names, by_saver))
    found = {
        one.spec.name: candidates[target(_raw_key(one, shadows))]
        for one in graph
        if one.spec.name not in transforms and target(_raw_key(one, shadows)) in candidates
    }
    found.update(asked)
    if wanted == "raw":
        keys = {name: shadow.base for name, shadow in by_saver.items()}
        return Choice(WeightsUsed("raw" if found or keys else "only", (), names), keys=keys)
    if wanted is None:
        stored = {spec.name for spec in checkpoint}
        no_raw = [one.spec.name for one in graph
                  if not stored.issuperset(transforms.get(one.spec.name, [one.key]))]  # fmt: skip
        problem = _question(graph, found, no_raw) if found else ""
        return Choice(WeightsUsed("only", (), names), problem=problem)
    return _averaged(graph, found, sources)


def _sources(
    names: Sequence[str],
    shadows: Mapping[str, Shadow],
    candidates: Mapping[str, List[Shadow]],
    target: Callable[[str], str],
) -> List[List[Shadow]]:
    """The averages of each source of a transform; [] when one has none: averages are not mixed."""
    groups = []
    for name in names:
        itself = shadows.get(name)
        if itself and itself.kind in (AVERAGE, UNKNOWN):
            groups.append([itself])
        else:
            groups.append([one for one in candidates.get(target(name), []) if one.base == name])
    return groups if all(groups) else []


def _not_named(groups: Iterable[List[Shadow]], names: Sequence[str]) -> List[Shadow]:
    """The averages that the transform does not name itself."""
    return [one for group in groups for one in group if one.spec.name not in names]


def _used(choice: str, names: Sequence[str], averaged: Iterable[str]) -> WeightsUsed:
    averaged = set(averaged)
    return WeightsUsed(
        choice,
        tuple(name for name in names if name in averaged),
        tuple(name for name in names if name not in averaged),
    )


def _is_average(shadows: Mapping[str, Shadow], variable: GraphVariable) -> bool:
    shadow = shadows.get(variable.key)
    return variable.key != variable.spec.name and bool(shadow and shadow.kind in (AVERAGE, UNKNOWN))


def _raw_key(variable: GraphVariable, shadows: Mapping[str, Shadow]) -> str:
    return shadows[variable.key].base if _is_average(shadows, variable) else variable.key


def _candidates(shadows: Iterable[Shadow], target: Callable[[str], str]) -> Dict[str, List[Shadow]]:
    """The averages of each variable, by its name after renames; of the nearest scope only.

    Names that could be an average or a slot count where there is no name that is surely one.
    """
    found: Dict[str, List[Shadow]] = {}
    for shadow in shadows:
        if shadow.kind in (AVERAGE, UNKNOWN):
            found.setdefault(target(shadow.base), []).append(shadow)
    sure = any(one.kind == AVERAGE for group in found.values() for one in group)
    kind = AVERAGE if sure else UNKNOWN
    chosen = {name: [one for one in group if one.kind == kind] for name, group in found.items()}
    return {name: _nearest(group) for name, group in chosen.items() if group}


def _nearest(group: List[Shadow]) -> List[Shadow]:
    """No scope before the variable's name, else its own scope again, else any."""

    def distance(one: Shadow) -> int:
        return 0 if not one.scope else 1 if one.base.startswith(one.scope) else 2

    least = min(distance(one) for one in group)
    return [one for one in group if distance(one) == least]


def _averaged(
    graph: Sequence[GraphVariable],
    found: Mapping[str, List[Shadow]],
    sources: Mapping[str, List[List[Shadow]]],
) -> Choice:
    averaged: Dict[str, Averaged] = {}
    problems: List[str] = []
    for variable in graph:
        group = found.get(variable.spec.name, [])
        groups = sources.get(variable.spec.name, [])
        if groups and all(len(each) == 1 for each in groups):
            made: Optional[Averaged] = (tuple(Piece.of(each[0].spec) for each in groups), ())
        else:
            made = _pieces(variable, group) if group and not groups else None
        if made:
            averaged[variable.spec.name] = made
        elif group:
            listed = ", ".join(sorted(one.spec.name for one in group))
            problems.append(f"{variable.spec.name}: which of {listed} is its average?")
    names = [variable.spec.name for variable in graph]
    if not found and not averaged:
        problems.append("--weights ema: the checkpoint has no moving average of the graph's "
                        "variables; expected --weights raw")  # fmt: skip
    elif problems:
        problems.append("Drop those that are not meant (with a reason) in the rules file.")
    return Choice(_used("ema", names, averaged), averaged, problem="\n".join(problems))


def _pieces(variable: GraphVariable, group: Sequence[Shadow]) -> Optional[Averaged]:
    """What is read for a variable: one entry, a slice of one, or the averages of its parts."""
    if len(group) == 1 and not group[0].spec.slices:
        return (Piece(group[0].spec, variable.part),), ()
    parts = {part: one.spec for one in group for part in one.spec.slices}
    if len({one.suffix for one in group}) > 1 or len(parts) != sum(
        len(one.spec.slices) or 1 for one in group
    ):
        return None
    if variable.part in parts:
        return (Piece(parts[variable.part], variable.part),), ()
    if not covers(tuple(parts)) or (variable.part and len(group) > 1):
        return None
    if len(group) == 1:
        return (Piece(group[0].spec, variable.part),), ()
    ordered = sorted(parts, key=lambda part: part.start)
    axis = axis_of(ordered)
    pieces = tuple(Piece(parts[part], part) for part in ordered)
    return (pieces, (Concat(axis),)) if axis >= 0 else None


def _question(
    graph: Sequence[GraphVariable], found: Mapping[str, List[Shadow]], no_raw: Sequence[str]
) -> str:
    """Both choices and what each covers."""
    total = len(graph)
    without = [one.spec.name for one in graph if one.spec.name not in found]
    shadows = [one for group in found.values() for one in group]
    families = ", ".join(sorted({one.family for one in shadows}))
    statistics = [one.spec.name for one in graph if _BATCH_STATISTICS.fullmatch(one.spec.name)]
    lines = [
        "the checkpoint has moving averages beside the variables; say which the bundle shall use:",
        f"  --weights ema  {len(found)} of {total} variables have an average ({families})"
        + _rest("these keep their raw value", without),
        f"  --weights raw  {total - len(no_raw)} of {total} variables have a raw value"
        + _rest("these have none", no_raw),
    ]
    if statistics:
        num = sum(name in found for name in statistics)
        lines.append(f"  batch norm statistics: {num} of {len(statistics)} have an average")
    if any(one.kind == UNKNOWN for one in shadows):
        lines.append(
            f"  {families} can be an optimizer as well: its name and shapes do not tell; then "
            "--weights raw is right"
        )
    lines.append("Take what the model is evaluated with: they give other predictions.")
    return "\n".join(lines)


def _rest(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"; {what}: {', '.join(names[:6])}{more}"
