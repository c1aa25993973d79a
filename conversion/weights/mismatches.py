"""Everything that does not match between a checkpoint and a graph, said at once with a way out."""

from __future__ import annotations

import difflib
import re
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from conversion.weights.specs import VariableSpec

_WAY_OUT = "Add a rename or a drop (with its reason) to the rules file."


class Mismatches:
    """Collects what does not match.

    Attributes:
        question: something that has to be decided first, "" when nothing.
    """

    def __init__(self) -> None:
        self.question = ""
        self._lines: List[str] = []
        self._count = 0
        self._found: Dict[str, List[Tuple[List[VariableSpec], List[VariableSpec]]]] = {}

    def add(
        self,
        what: str,
        plus: Iterable[VariableSpec],
        minus: Iterable[VariableSpec],
        more: str = "",
    ) -> None:
        plus, minus = list(plus), list(minus)
        self._found.setdefault(what, []).append((plus, minus))
        lines = [f"+ {spec}" for spec in plus] + [f"- {spec}" for spec in minus]
        self.add_text(what, *lines, *([more] if more else []))

    def add_text(self, what: str, *lines: str) -> None:
        self._count += 1
        for line in lines:
            self._lines.append(f"  {what:<15}{line}")
            what = ""

    def text(self) -> str:
        """The whole message; "" when all matches."""
        if not self._count:
            return self.question
        places = "1 place" if self._count == 1 else f"{self._count} places"
        lines = [f"checkpoint (+) and graph (-) differ in {places}:", *self._lines, self._hint()]
        return "\n".join(lines + [self.question] if self.question else lines)

    def _hint(self) -> str:
        """A rules text that would do, where there is one; else the nearest names."""
        missing = [minus[0] for _, minus in self._found.get("no source for", [])]
        unread = [plus[0] for plus, _ in self._found.get("no rule for", [])]
        rename = _common_rename(missing, unread)
        if rename:
            return (
                "All of these names differ in the same way. If they mean the same, put into the "
                f"rules file:\n{rename}"
            )
        concats = [text for one in missing for text in [_shards(one, unread)] if text]
        hints = concats + [text for one in missing for text in [_nearest(one, unread)] if text]
        hints += [
            text
            for plus, minus in self._found.get("differs", [])
            for text in [_transform(plus[0], minus[0])]
            if text
        ]
        return "\n".join([_WAY_OUT, *hints])


def _common_rename(missing: Sequence[VariableSpec], unread: Sequence[VariableSpec]) -> str:
    """The rename by prefix that gives every missing variable its source."""
    by_name = {spec.name: spec for spec in unread}
    for old, new in _prefixes(missing, unread):
        sources = [by_name.get(old + one.name[len(new) :]) for one in missing]
        if all(
            source and one.name.startswith(new) and source.fits(one)
            for source, one in zip(sources, missing)
        ):
            return f"rename:\n  - from: {re.escape(old)}(.*)\n    to: {new}\\1"
    return ""


def _prefixes(
    missing: Sequence[VariableSpec], unread: Sequence[VariableSpec]
) -> List[Tuple[str, str]]:
    """Prefixes by which the first missing name differs from unread ones, shortest first."""
    if not missing:
        return []
    found = []
    parts = missing[0].name.split("/")
    for spec in unread:
        others = spec.name.split("/")
        same = 0
        while same < min(len(parts), len(others)) and parts[-1 - same] == others[-1 - same]:
            same += 1
        if same:
            rests = (others[: len(others) - same], parts[: len(parts) - same])
            old, new = ("".join(part + "/" for part in rest) for rest in rests)
            found.append((old, new))
    return sorted(set(found), key=lambda pair: len(pair[0]) + len(pair[1]))


def _shards(one: VariableSpec, unread: Sequence[VariableSpec]) -> str:
    names = sorted(
        (
            spec.name
            for spec in unread
            if re.fullmatch(re.escape(one.name) + r"/part_\d+", spec.name)
        ),
        key=lambda name: int(name.rpartition("_")[2]),
    )
    if not names:
        return ""
    return (
        f"{one.name} seems to lie in {len(names)} shards. If so, put into the rules file:\n"
        f"transform:\n  - to: {re.escape(one.name)}\n    from: [{', '.join(names)}]\n"
        "    steps: [{concat: 0}]\n    reason: stored in shards"
    )


def _nearest(one: VariableSpec, unread: Sequence[VariableSpec]) -> str:
    fitting = [spec.name for spec in unread if spec.fits(one)]
    near = difflib.get_close_matches(one.name, fitting, n=2, cutoff=0.75)
    return f"Near {one.name}: {', '.join(near)}" if near else ""


def _transform(source: VariableSpec, wanted: VariableSpec) -> str:
    """The step that would bring a shape to the graph's; only a person can know whether it may."""
    step = _step(source, wanted)
    if not step:
        return ""
    return (
        f"A transform of {wanted.name} with the step {{{step}}} (and a reason) would fit; whether "
        "it is right, only the parity report tells."
    )


def _step(source: VariableSpec, wanted: VariableSpec) -> Optional[str]:
    before, after = source.stored_shape, wanted.shape
    if before is None or after is None or None in before or None in after:
        return None
    if before == after:
        return None if source.dtype == wanted.dtype else f"cast: {wanted.dtype}"
    if len(before) == 2 and before == after[::-1]:
        return "transpose: [1, 0]"
    if sorted(before) == sorted(after) or _volume(before) != _volume(after):  # type: ignore
        return None
    return f"reshape: {list(after)}"


def _volume(shape: Sequence[int]) -> int:
    volume = 1
    for size in shape:
        volume *= size
    return volume
