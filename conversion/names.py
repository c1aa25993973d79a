"""Variables of a checkpoint and of a graph -> a total mapping, by rules that are data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Dict, Iterable, List, Optional, Set, Tuple
from typing import Mapping as ReadOnly

from batchinfer.errors import InputError, MappingError

_SLOT_NAMES = (
    "Adam|AdamW|AdaMax|Nadam|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|ProximalAdagrad|"
    "LARSOptimizer|PowerSignOptimizer|AddSignOptimizer|Shampoo"
)
_KERAS_NAMES = "Adam|Adamax|Nadam|SGD|RMSprop|Adagrad|Adadelta|Ftrl"


def _compiled(pattern: str, kind: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InputError(f"{kind} {pattern!r} is not a regular expression: {error}") from error


@dataclass(frozen=True)
class VariableSpec:
    """A variable's name, dtype and shape; a shape of None is not known before it is read."""

    name: str
    dtype: str
    shape: Optional[Tuple[Optional[int], ...]]

    def fits(self, other: VariableSpec) -> bool:
        """Same shape where both are known, and same dtype; bfloat16 is read as float32."""
        dtypes = {self.dtype, other.dtype}
        if len(dtypes) > 1 and dtypes != {"bfloat16", "float32"}:
            return False
        if self.shape is None or other.shape is None:
            return True
        return len(self.shape) == len(other.shape) and all(
            mine is None or theirs is None or mine == theirs
            for mine, theirs in zip(self.shape, other.shape)
        )

    def __str__(self) -> str:
        shape = "?" if self.shape is None else ", ".join(map(str, self.shape))
        return f"{self.name}  {self.dtype}[{shape}]"


@dataclass(frozen=True)
class GraphVariable:
    """A variable that the graph reads.

    Attributes:
        spec: its name in the graph, dtype and shape.
        key: the checkpoint's name for it, as the graph's own saver has it.
    """

    spec: VariableSpec
    key: str


@dataclass(frozen=True)
class Rename:
    """`pattern`, matched with the whole name, becomes `replacement` (with \\1, \\2 ...)."""

    pattern: str
    replacement: str

    def __post_init__(self) -> None:
        _compiled(self.pattern, "rename")
        try:
            re.sub(self.pattern, self.replacement, "")
        except (re.error, IndexError) as error:
            raise InputError(f"rename {self}: the replacement does not fit: {error}") from error

    def __str__(self) -> str:
        return f"{self.pattern} -> {self.replacement}"


@dataclass(frozen=True)
class Drop:
    """Checkpoint variables whose whole name matches `pattern` are left out, for a reason."""

    pattern: str
    reason: str

    def __post_init__(self) -> None:
        _compiled(self.pattern, "drop")
        if not self.reason.strip():
            raise InputError(f"drop {self.pattern!r} has no reason; expected one, for the manifest")


@dataclass(frozen=True)
class Rules:
    """Renames (the first that matches is applied) and drops, the user's own."""

    renames: Tuple[Rename, ...] = ()
    drops: Tuple[Drop, ...] = ()

    def target(self, name: str) -> str:
        for rename in self.renames:
            match = re.fullmatch(rename.pattern, name)
            if match:
                return match.expand(rename.replacement)
        return name


NO_RULES = Rules()
NOTHING: ReadOnly[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Assignment:
    """One variable of the bundle: from `source` in the checkpoint, for `variable` in the graph."""

    source: VariableSpec
    variable: GraphVariable
    target: str


@dataclass(frozen=True)
class Dropped:
    """A checkpoint variable that is not in the bundle, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Mapping:
    """Every checkpoint variable, either assigned or dropped; every graph variable, once."""

    assignments: Tuple[Assignment, ...]
    drops: Tuple[Dropped, ...]


# What trainers of TF 1.15 save beside the model. They only apply to names that the graph does
# not read. Slots of variables in scopes carry the scope twice, so the ends of names are looked at.
DEFAULT_DROPS = (
    Drop("(.*/)?global_step", "training step"),
    Drop(rf".+/({_SLOT_NAMES})(_\d+)?", "optimizer slot"),
    Drop(r"(.*/)?beta[12]_power(_\d+)?", "optimizer state (power of beta)"),
    Drop(r".+/(adam|lamb)_[mv]", "optimizer slot (BERT's AdamWeightDecay, LAMB)"),
    Drop(r".+_slot_(vr|vc|v|m)", "optimizer slot (Adafactor)"),
    Drop(
        rf"(training/)?({_KERAS_NAMES})/(iter|beta_1|beta_2|decay|learning_rate|momentum|rho"
        r"|.*/(m|v|vhat|momentum|rms|accumulator))",
        "optimizer state (Keras)",
    ),
    Drop(r".+/ExponentialMovingAverage(_\d+)?", "moving average that the graph does not read"),
    Drop(r"_CHECKPOINTABLE_OBJECT_GRAPH|save_counter(/.*)?", "bookkeeping of the saver"),
)


def assign(
    checkpoint: Iterable[VariableSpec],
    graph: Iterable[GraphVariable],
    rules: Rules,
    left_out: ReadOnly[str, str] = NOTHING,
) -> Mapping:
    """A total mapping, or an error; see `match`.

    Raises:
        MappingError: a variable without source or rule, another shape or dtype, two sources for
            one target, two graph variables under one new name, or a rename that matches
            nothing; all of them in one list.
    """
    mapping, problem = match(checkpoint, graph, rules, left_out)
    if problem:
        raise MappingError(problem)
    return mapping


def match(
    checkpoint: Iterable[VariableSpec],
    graph: Iterable[GraphVariable],
    rules: Rules,
    left_out: ReadOnly[str, str] = NOTHING,
) -> Tuple[Mapping, str]:
    """Match the checkpoint with the graph, both under their new names, as far as it goes.

    The renames apply to the checkpoint's names and to the graph's, so that the bundle's
    variables carry the new names and a checkpoint with other names can be brought to the graph's.

    Args:
        left_out: reason by checkpoint name for entries that the checkpoint itself says are no
            part of the model; dropped unless the graph reads them.

    Returns:
        What fits, and one text that lists everything that does not ("" when all does).
    """
    checkpoint, graph = tuple(checkpoint), tuple(graph)
    drops, sources = _sorted_by_target(checkpoint, rules)
    problems = _Problems()
    targets: Dict[str, GraphVariable] = {}
    assignments: List[Assignment] = []
    read: Set[str] = set()
    for variable in sorted(graph, key=lambda variable: variable.spec.name):
        target = rules.target(variable.spec.name)
        if target in targets:
            problems.add("same new name", [], [targets[target].spec, variable.spec])
        targets[target] = variable
        found = sources.get(rules.target(variable.key), [])
        read.update(source.name for source in found)
        if not found:
            problems.add("no source for", [], [variable.spec])
        elif len(found) > 1:
            problems.add("two sources", found, [variable.spec])
        elif not found[0].fits(variable.spec):
            problems.add("differs", found, [variable.spec])
        else:
            assignments.append(Assignment(found[0], variable, target))
    for source in (one for group in sources.values() for one in group):
        drop = _first_match(source.name, DEFAULT_DROPS)
        reason = left_out.get(source.name, drop.reason if drop else "")
        if source.name not in read and reason:
            drops.append(Dropped(source.name, reason))
        elif source.name not in read:
            problems.add("no rule for", [source], [])
    names = [spec.name for spec in checkpoint] + [variable.spec.name for variable in graph]
    for rename in rules.renames:
        if not any(re.fullmatch(rename.pattern, name) for name in names):
            problems.add_text("unused rule", f"rename {rename}")
    mapping = Mapping(tuple(assignments), tuple(sorted(drops, key=lambda drop: drop.name)))
    return mapping, problems.text()


def _sorted_by_target(
    checkpoint: Tuple[VariableSpec, ...], rules: Rules
) -> Tuple[List[Dropped], Dict[str, List[VariableSpec]]]:
    """What the user drops, and the rest by its new name."""
    drops: List[Dropped] = []
    sources: Dict[str, List[VariableSpec]] = {}
    for spec in sorted(checkpoint, key=lambda spec: spec.name):
        drop = _first_match(spec.name, rules.drops)
        if drop:
            drops.append(Dropped(spec.name, drop.reason))
        else:
            sources.setdefault(rules.target(spec.name), []).append(spec)
    return drops, sources


def _first_match(name: str, drops: Tuple[Drop, ...]) -> Optional[Drop]:
    return next((drop for drop in drops if re.fullmatch(drop.pattern, name)), None)


class _Problems:
    """Collects everything that does not match, to say it at once."""

    def __init__(self) -> None:
        self._lines: List[str] = []
        self._count = 0

    def add(self, what: str, plus: Iterable[VariableSpec], minus: Iterable[VariableSpec]) -> None:
        lines = [f"+ {spec}" for spec in plus] + [f"- {spec}" for spec in minus]
        self.add_text(what, *lines)

    def add_text(self, what: str, *lines: str) -> None:
        self._count += 1
        for line in lines:
            self._lines.append(f"  {what:<15}{line}")
            what = ""

    def text(self) -> str:
        if not self._count:
            return ""
        places = "1 place" if self._count == 1 else f"{self._count} places"
        return (
            f"checkpoint (+) and graph (-) differ in {places}:\n"
            + "\n".join(self._lines)
            + "\nAdd a rename or a drop (with its reason) to the rules file."
        )
