"""An inspection -> text for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from typing import Dict, Iterable, List, Mapping

from conversion.inspection import KEPT, NOT_NEEDED, Inspection, VariableFate, kind_of
from conversion.source import tags_of
from conversion.surgery import REWRITES

WIDTH = 100
DROPPED = "dropped: "
SHOWN_PER_REASON = 2  # dropped variables; --json has all
_CHOSEN = {"saver": "by the graph's own saver", "ema": "--weights ema", "raw": "--weights raw"}


def as_text(found: Inspection) -> str:
    """What it is, its tensors, its ops, its variables, what stands in the way, what to type."""
    parts = [
        _head(found),
        _tensors(found),
        _ops(found),
        _rewrites(found),
        _variables(found),
        _end(found),
    ]
    return "\n\n".join(part for part in parts if part)


def _head(found: Inspection) -> str:
    source = found.source
    lines = [f"{source.path}", f"  kind        {kind_of(source)}"]
    if tags_of(source):
        lines.append(f"  tags        {', '.join(tags_of(source))}")
    if source.meta_graph is not None:
        lines.append(f"  graph       {found.num_nodes} nodes, {found.num_functions} functions")
    lines.append(f"  checkpoint  {source.checkpoint or 'none found'}")
    for note in source.notes:
        lines += textwrap.wrap("  note        " + note, WIDTH, subsequent_indent=" " * 14)
    return "\n".join(lines)


def _tensors(found: Inspection) -> str:
    lines: List[str] = []
    for name, signature in found.signatures.items():
        lines += [f"SIGNATURE {name}"] + _sides(signature)
    if found.candidates:
        lines += ["NO SIGNATURE; these look like inputs and outputs"] + _sides(found.candidates)
    if found.bundle:
        lines += ["THE BUNDLE would take and give"] + _sides(found.bundle)
    return "\n".join(lines)


def _sides(sides: Mapping[str, Mapping[str, str]]) -> List[str]:
    return [
        f"  {kind[:-1]:<7} {name:<16} {text}"
        for kind in ("inputs", "outputs")
        for name, text in sides[kind].items()
    ] or ["  none"]


def _ops(found: Inspection) -> str:
    if not found.ops:
        return ""
    treated = [op for op in found.ops if op.fate not in (KEPT, NOT_NEEDED)]
    kept = [f"{op.op} x{op.needed}" for op in found.ops if op.fate == KEPT]
    rest = [f"{op.op} x{op.count - op.needed}" for op in found.ops if op.count > op.needed]
    lines = ["OPS"]
    for op in treated:
        head = f"  {op.op:<28} x{op.needed:<5} "
        lines += textwrap.wrap(head + op.fate, WIDTH, subsequent_indent=" " * len(head))
    return "\n".join(lines + _listed("kept", kept) + _listed(NOT_NEEDED, rest))


def _listed(title: str, words: Iterable[str]) -> List[str]:
    """`title: a, b, c` over as many lines as needed; a word is never broken."""
    unbroken = ", ".join(word.replace(" ", "\0") for word in words)
    if not unbroken:
        return []
    lines = textwrap.wrap(
        f"  {title}: {unbroken}", WIDTH, subsequent_indent="    ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\0", " ") for line in lines]


def _rewrites(found: Inspection) -> str:
    if not found.rewrites:
        return ""
    does = {rewrite.name: rewrite.does for rewrite in REWRITES}
    lines = ["REWRITES"]
    for name, count in found.rewrites.items():
        head = f"  {name:<28} x{count:<5} "
        lines += textwrap.wrap(head + does.get(name, ""), WIDTH, subsequent_indent=" " * len(head))
    return "\n".join(lines)


def _variables(found: Inspection) -> str:
    """Each variable that stays; those that are dropped, by reason once there are many."""
    if not found.variables:
        return ""
    width = min(48, max(len(one.spec.name) for one in found.variables))
    dropped: Dict[str, List[VariableFate]] = {}
    lines = [f"VARIABLES of the checkpoint ({len(found.variables)})"]
    if found.weights.get("choice", "only") != "only":
        used = found.weights
        lines.append(
            f"  weights: {used['from_ema']} moving averages, {used['raw']} raw values "
            f"({_CHOSEN[used['choice']]})"
        )
    for one in found.variables:
        if one.fate.startswith(DROPPED):
            dropped.setdefault(one.fate, []).append(one)
        else:
            lines.append(_variable(one, width))
    for fate, group in sorted(dropped.items()):
        if len(group) > SHOWN_PER_REASON:
            some = f"  {len(group)} such as {group[0].spec.name}"
            lines += textwrap.wrap(f"{some}  {fate}", WIDTH, subsequent_indent="    ")
        else:
            lines += [_variable(one, width) for one in group]
    return "\n".join(lines)


def _variable(one: VariableFate, width: int) -> str:
    kind = str(one.spec).partition("  ")[2]
    return f"  {one.spec.name:<{width}}  {kind:<20}  {one.fate}"


def _end(found: Inspection) -> str:
    if found.problems:
        lines = [line for problem in found.problems for line in _indented(problem)]
        return "CANNOT BE CONVERTED AS IT IS\n" + "\n".join(lines)
    return "CONVERT\n  " + found.command.replace(" --", " \\\n      --")


def _indented(problem: str) -> List[str]:
    """A problem's lines, wrapped where they are longer than the terminal."""
    lines = []
    for index, line in enumerate(problem.splitlines()):
        inner = len(line) - len(line.lstrip())
        first = "  - " if index == 0 else "    " + " " * inner
        lines += textwrap.wrap(
            line.strip(), WIDTH, initial_indent=first, subsequent_indent="    " + " " * inner,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines
