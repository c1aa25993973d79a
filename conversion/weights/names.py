"""A user's rules about variables, as data: renames, drops, and transforms with their reasons."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Tuple

from batchinfer.errors import InputError
from conversion.weights.specs import Assignment, Dropped, GraphVariable, Mapping, VariableSpec
from conversion.weights.steps import Concat, Step

__all__ = [
    "NO_RULES",
    "Assignment",
    "Drop",
    "Dropped",
    "GraphVariable",
    "Mapping",
    "Rename",
    "Rules",
    "Transform",
    "VariableSpec",
]


def _compiled(pattern: str, kind: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{kind} {pattern!r} is not a regular expression: {error}") from error


def _check_replacement(pattern: str, replacement: str, rule: str) -> None:
    try:
        re.compile(pattern + "|").fullmatch("").expand(replacement)  # type: ignore[union-attr]
    except (re.error, IndexError) as error:
        raise InputError(f"{rule}: the replacement does not fit: {error}") from error


def _require_reason(rule: str, reason: str) -> None:
    if not reason.strip():
        raise InputError(f"{rule} has no reason; expected one, for the manifest")


@dataclass(frozen=True)
class Rename:
    """`pattern`, matched with the whole name, becomes `replacement` (with \\1, \\2 ...)."""

    pattern: str
    replacement: str

    def __post_init__(self) -> None:
        _compiled(self.pattern, "rename")
        _check_replacement(self.pattern, self.replacement, f"rename {self}")

    def __str__(self) -> str:
        return f"{self.pattern} -> {self.replacement}"


@dataclass(frozen=True)
class Drop:
    """Checkpoint variables whose whole name matches `pattern` are left out, for a reason."""

    pattern: str
    reason: str

    def __post_init__(self) -> None:
        _compiled(self.pattern, "drop")
        _require_reason(f"drop {self.pattern!r}", self.reason)


@dataclass(frozen=True)
class Transform:
    """Graph variables whose whole name matches `pattern` are made of `sources` by `steps`.

    Attributes:
        sources: names in the checkpoint (with \\1, \\2 ...); several need a concat as first step.
    """

    pattern: str
    sources: Tuple[str, ...]
    steps: Tuple[Step, ...]
    reason: str

    def __post_init__(self) -> None:
        rule = f"transform {self.pattern!r}"
        _compiled(self.pattern, "transform")
        _require_reason(rule, self.reason)
        if not self.sources or not self.steps:
            raise InputError(f"{rule} has no source or no step; expected at least one of each")
        for source in self.sources:
            _check_replacement(self.pattern, source, f"{rule} from {source}")
        first = isinstance(self.steps[0], Concat)
        others = any(isinstance(step, Concat) for step in self.steps[1:])
        if first != (len(self.sources) > 1) or others:
            raise InputError(
                f"{rule}: expected concat as the first step exactly when there are several "
                f"sources; found {len(self.sources)} source(s) and the steps "
                f"{', '.join(step.text for step in self.steps)}"
            )

    def sources_of(self, name: str) -> Optional[Tuple[str, ...]]:
        """The checkpoint names for a graph variable; None when the rule is not about it."""
        match = re.fullmatch(self.pattern, name)
        return tuple(match.expand(source) for source in self.sources) if match else None


@dataclass(frozen=True)
class Rules:
    """Renames (the first that matches is applied), drops and transforms, the user's own."""

    renames: Tuple[Rename, ...] = ()
    drops: Tuple[Drop, ...] = ()
    transforms: Tuple[Transform, ...] = ()

    def target(self, name: str) -> str:
        for rename in self.renames:
            match = re.fullmatch(rename.pattern, name)
            if match:
                return match.expand(rename.replacement)
        return name

    def drop(self, name: str) -> Optional[Drop]:
        return next((drop for drop in self.drops if re.fullmatch(drop.pattern, name)), None)

    def transform(self, name: str) -> Optional[Transform]:
        return next((one for one in self.transforms if re.fullmatch(one.pattern, name)), None)

    def unused(self, checkpoint: Iterable[str], graph: Iterable[str]) -> List[str]:
        """Rules that match nothing: nothing else would show a typing mistake."""
        checkpoint, graph = list(checkpoint), list(graph)
        both: Dict[str, None] = dict.fromkeys(checkpoint + graph)
        kinds = (
            ("rename", [(one.pattern, str(one)) for one in self.renames], list(both)),
            ("drop", [(one.pattern, one.pattern) for one in self.drops], checkpoint),
            ("transform", [(one.pattern, one.pattern) for one in self.transforms], graph),
        )
        return [
            f"{kind} {text}"
            for kind, rules, names in kinds
            for pattern, text in rules
            if not any(re.fullmatch(pattern, name) for name in names)
        ]


NO_RULES = Rules()
