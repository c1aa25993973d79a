"""Variables of a checkpoint and of a graph -> a total mapping, or the list of what is wrong."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Container, Dict, Iterable, List, Optional, Set, Tuple
from typing import Mapping as Dictionary

from batchinfer.errors import MappingError
from conversion.weights.averages import Choice, choose_weights
from conversion.weights.leftovers import leftover_reason
from conversion.weights.mismatches import Mismatches
from conversion.weights.names import Rules
from conversion.weights.partitions import with_parts
from conversion.weights.shadows import AVERAGE, find_shadows
from conversion.weights.specs import (
    Assignment,
    Dims,
    Dropped,
    GraphVariable,
    Mapping,
    Piece,
    VariableSpec,
    same_shape,
)
from conversion.weights.steps import dtype_after, shape_after

REPLACED = "raw value; its moving average is used"
READ_ELSEWHERE = "not read by the outputs; another signature of the source reads it"
NOTHING: Dictionary[str, str] = MappingProxyType({})


def assign(
    checkpoint: Iterable[VariableSpec],
    graph: Iterable[GraphVariable],
    rules: Rules,
    weights: Optional[str] = None,
    left_out: Dictionary[str, str] = NOTHING,
    elsewhere: Container[str] = (),
) -> Mapping:
    """A total mapping, or an error.

    Raises:
        MappingError: a variable without source or rule, another shape or dtype, two sources for
            one target, two graph variables under one new name, a rule that matches nothing, or
            moving averages without a choice; all of them in one list.
    """
    mapping, problem = match(checkpoint, graph, rules, weights, left_out, elsewhere)
    if problem:
        raise MappingError(problem)
    return mapping


def match(
    checkpoint: Iterable[VariableSpec],
    graph: Iterable[GraphVariable],
    rules: Rules,
    weights: Optional[str] = None,
    left_out: Dictionary[str, str] = NOTHING,
    elsewhere: Container[str] = (),
) -> Tuple[Mapping, str]:
    """Match the checkpoint with the graph, both under their new names, as far as it goes.

    The renames apply to the checkpoint's names and to the graph's, so that the bundle's
    variables carry the new names and a checkpoint with other names can be brought to the graph's.

    Args:
        weights: "raw", "ema", or None to ask when there are moving averages.
        left_out: reason by checkpoint name for entries that the checkpoint itself says are no
            part of the model; dropped unless the graph reads them.
        elsewhere: checkpoint names that other signatures of the source read; dropped likewise.

    Returns:
        What fits, and one text that lists everything that does not ("" when all does).
    """
    matcher = _Matcher(tuple(checkpoint), tuple(graph), rules, weights, left_out, elsewhere)
    return matcher.mapping(), matcher.mismatches.text()


class _Matcher:
    """One pass over a graph's variables, then over what is left of the checkpoint."""

    def __init__(
        self,
        checkpoint: Tuple[VariableSpec, ...],
        graph: Tuple[GraphVariable, ...],
        rules: Rules,
        weights: Optional[str],
        left_out: Dictionary[str, str],
        elsewhere: Container[str],
    ) -> None:
        self._left_out = left_out
        self._elsewhere = elsewhere
        self._rules = rules
        self._all = {spec.name: spec for spec in checkpoint}
        self._dropped = {
            name: drop.reason for name in self._all for drop in [rules.drop(name)] if drop
        }
        self._sources: Dict[str, List[VariableSpec]] = {}
        for name, spec in sorted(self._all.items()):
            if name not in self._dropped:
                self._sources.setdefault(rules.target(name), []).append(spec)
        kept = [spec for name, spec in self._all.items() if name not in self._dropped]
        graph = with_parts(graph, {rules.target(one.name): one for one in kept}, rules.target)
        self._graph = sorted(graph, key=lambda variable: variable.spec.name)
        self._shadows = find_shadows(kept, _keys_read(self._graph))
        names = (variable.spec.name for variable in self._graph)
        made_of = {name: rule.sources_of(name) or () for name in names
                   for rule in [rules.transform(name)] if rule}  # fmt: skip
        self._choice = choose_weights(
            self._graph, kept, self._shadows, rules.target, weights, made_of
        )
        self._read: Set[str] = set()
        self._replaced: Set[str] = set()  # by their moving averages
        self.mismatches = Mismatches()

    def mapping(self) -> Mapping:
        assignments = []
        targets: Dict[str, GraphVariable] = {}
        for variable in self._graph:
            target = self._rules.target(variable.spec.name)
            if target in targets:
                self.mismatches.add("same new name", [], [targets[target].spec, variable.spec])
            targets[target] = variable
            found = self._assignment(variable, target)
            if found:
                assignments.append(found)
            if found and variable.spec.name in self._choice.used.from_ema:
                names = [piece.spec.name for piece in found.pieces]
                self._replaced |= {self._shadows[name].base for name in names}
        drops = self._left_over()
        names = [variable.spec.name for variable in self._graph]
        for unused in self._rules.unused(self._all, names):
            self.mismatches.add_text("unused rule", unused)
        self.mismatches.question = self._choice.problem
        drops.sort(key=lambda drop: drop.name)
        return Mapping(tuple(assignments), tuple(drops), self._choice.used)

    def _assignment(self, variable: GraphVariable, target: str) -> Optional[Assignment]:
        if self._rules.transform(variable.spec.name):
            return self._transformed(variable, target)
        averaged = self._choice.averaged.get(variable.spec.name)
        if averaged:
            made = Assignment(averaged[0], variable, target, averaged[1])
            return made if self._fits(made) else None
        found = self._sources_of(variable)
        self._read.update(spec.name for spec in found)
        if not found:
            self.mismatches.add("no source for", [], [variable.spec])
        elif len(found) > 1:
            self.mismatches.add("two sources", found, [variable.spec])
        else:
            piece = Piece(found[0], variable.part) if variable.part else Piece.of(found[0])
            made = Assignment((piece,), variable, target)
            return made if self._fits(made) else None
        return None

    def _sources_of(self, variable: GraphVariable) -> List[VariableSpec]:
        key = self._choice.keys.get(variable.spec.name, variable.key)
        return self._sources.get(self._rules.target(key), [])

    def _transformed(self, variable: GraphVariable, target: str) -> Optional[Assignment]:
        rule = self._rules.transform(variable.spec.name)
        names = rule.sources_of(variable.spec.name) if rule else None
        if rule is None or names is None:
            return None
        missing = [name for name in names if name not in self._all or name in self._dropped]
        if missing:
            self._read.update(names)
            lines = [f"transform {rule.pattern}"] + [f"+ {name} is not there" for name in missing]
            self.mismatches.add_text("no such source", *lines, f"- {variable.spec}")
            return None
        averaged = self._choice.averaged.get(variable.spec.name)
        pieces = averaged[0] if averaged else tuple(Piece.of(self._all[name]) for name in names)
        made = Assignment(pieces, variable, target, rule.steps, rule.reason)
        return made if self._fits(made) else None

    def _fits(self, made: Assignment) -> bool:
        """Shape and dtype as the graph has them, after the steps; else it is noted."""
        specs = [piece.spec for piece in made.pieces]
        self._read.update(spec.name for spec in specs)
        wanted, problem = made.variable.spec, ""
        shapes = [tuple(size or 0 for size in piece.shape or ()) for piece in made.pieces]
        try:
            shape: Dims = shape_after(made.steps, shapes) if made.steps else made.pieces[0].shape
        except ValueError as error:
            self.mismatches.add("differs", specs, [wanted], f"  {error}")
            return False
        dtype = dtype_after(made.steps, specs[0].dtype)
        if any(not piece.readable for piece in made.pieces):
            problem = "  only some slices of it are in the checkpoint"
        elif any(one.part and one.part.full != one.spec.shape for one in made.pieces):
            problem = f"  the graph reads the slice {made.pieces[0].part} of it"
        elif len({spec.dtype for spec in specs}) > 1:
            problem = "  the sources have several dtypes"
        elif replace(specs[0], dtype=dtype, shape=shape, slices=()).fits(wanted):
            return True
        elif made.steps and not same_shape(shape, wanted.shape):
            problem = f"  the steps give {dtype}{list(shape or ())}"
        self.mismatches.add("differs", specs, [wanted], problem)
        return False

    def _left_over(self) -> List[Dropped]:
        """What no graph variable reads: dropped for its reason, or noted."""
        drops = [Dropped(name, reason) for name, reason in self._dropped.items()]
        averaged = self._replaced
        for name, spec in sorted(self._all.items()):
            if name in self._dropped or name in self._read:
                continue
            reason = self._reason(name, averaged)
            if reason:
                drops.append(Dropped(name, reason))
            else:
                self.mismatches.add("no rule for", [spec], [])
        return drops

    def _reason(self, name: str, averaged: Set[str]) -> Optional[str]:
        if name in self._left_out:
            return self._left_out[name]
        shadow = self._shadows.get(name)
        if name in averaged:
            return f"{REPLACED} ({_why(self._choice)})"
        if shadow and shadow.kind == AVERAGE and self._choice.used.choice == "raw":
            return f"{shadow.reason}; --weights raw was asked for"
        if shadow:
            return shadow.reason
        reason = leftover_reason(name, self._shadows.values())
        return reason or (READ_ELSEWHERE if name in self._elsewhere else None)


def _keys_read(graph: Iterable[GraphVariable]) -> Dictionary[str, Dims]:
    """Shape by checkpoint name of what the graph reads."""
    return {one.key: one.part.full if one.part else one.spec.shape for one in graph}


def _why(choice: Choice) -> str:
    return "--weights ema" if choice.used.choice == "ema" else "by the graph's own saver"
