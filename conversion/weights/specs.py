"""Variables on both sides of a conversion, and how one becomes the other; plain records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple

from conversion.weights.slices import Slice, covers
from conversion.weights.steps import Step

# Stored and read dtype that need no rule: what a TPU rounds to, what a GPU computes in instead.
CASTS = {("bfloat16", "float32")}
Dims = Optional[Tuple[Optional[int], ...]]


@dataclass(frozen=True)
class VariableSpec:
    """A variable's name, dtype and shape.

    Attributes:
        shape: None is not known before it is read.
        slices: the parts in which a checkpoint holds it; () when it is in one piece. They can
            be less than the whole: the slots of a partition lie under the whole's shape.
    """

    name: str
    dtype: str
    shape: Dims
    slices: Tuple[Slice, ...] = ()

    def fits(self, other: VariableSpec) -> bool:
        """Same shape where both are known, and same dtype; bfloat16 is read as float32."""
        if self.dtype != other.dtype and (self.dtype, other.dtype) not in CASTS:
            return False
        return same_shape(self.shape, other.shape)

    @property
    def part(self) -> Optional[Slice]:
        """The one slice that is stored, where it is less than the whole."""
        alone = len(self.slices) == 1 and not covers(self.slices)
        return self.slices[0] if alone else None

    @property
    def stored_shape(self) -> Dims:
        return self.part.shape if self.part else self.shape

    def to_json(self) -> Dict[str, Any]:
        """Its entry in what `jobs/inspect.py --json` prints."""
        shape = None if self.shape is None else list(self.shape)
        slices = [str(one) for one in self.slices]
        entry: Dict[str, Any] = {"name": self.name, "dtype": self.dtype, "shape": shape}
        return {**entry, "slices": slices} if slices else entry

    def __str__(self) -> str:
        shape = "?" if self.stored_shape is None else ", ".join(map(str, self.stored_shape))
        part = f" of {list(self.part.full)}" if self.part else ""
        return f"{self.name}  {self.dtype}[{shape}]{part}"


def same_shape(mine: Dims, theirs: Dims) -> bool:
    if mine is None or theirs is None:
        return True
    return len(mine) == len(theirs) and all(
        one is None or other is None or one == other for one, other in zip(mine, theirs)
    )


@dataclass(frozen=True)
class GraphVariable:
    """A variable that the graph reads.

    Attributes:
        spec: its name in the graph, dtype and shape.
        key: the checkpoint's name for it, as the graph's own saver has it.
        part: the slice of the checkpoint's variable that it is; None when it is all of it.
    """

    spec: VariableSpec
    key: str
    part: Optional[Slice] = None


@dataclass(frozen=True)
class Piece:
    """A checkpoint's variable, or a slice of it, as it is read."""

    spec: VariableSpec
    part: Optional[Slice] = None

    @classmethod
    def of(cls, spec: VariableSpec) -> Piece:
        """All that is stored of a variable."""
        return cls(spec, spec.part)

    @property
    def shape(self) -> Dims:
        return self.part.shape if self.part else self.spec.shape

    @property
    def readable(self) -> bool:
        """Whether the checkpoint holds all of it."""
        stored = self.spec.slices
        return not stored or covers(stored) or self.part in stored

    @property
    def restore_slice(self) -> str:
        """The `shape_and_slices` entry of RestoreV2."""
        return str(self.part) if self.part else ""

    @property
    def text(self) -> str:
        return self.spec.name + (f" [{self.part}]" if self.part else "")


@dataclass(frozen=True)
class Assignment:
    """One variable of the bundle.

    Attributes:
        pieces: what is read of the checkpoint.
        variable: what it is for in the graph.
        target: its name in the bundle.
        steps: what makes one value of the pieces, in order.
        reason: why, when a rule of the user's asks for the steps.
        saved_as: the slice of a whole under which it is saved; None for all.
    """

    pieces: Tuple[Piece, ...]
    variable: GraphVariable
    target: str
    steps: Tuple[Step, ...] = ()
    reason: str = ""
    saved_as: Optional[Slice] = None

    def fate(self, kept: str) -> str:
        """What becomes of its pieces, in words; `kept` when nothing changes."""
        steps = "".join(f", {step.text}" for step in self.steps)
        if len(self.pieces) > 1 or steps:
            return f"part of {self.target}{steps}"
        piece = self.pieces[0]
        return kept if self.target == piece.spec.name else f"renamed to {self.target}"

    def to_json(self) -> Dict[str, Any]:
        """The variable's entry in the manifest."""
        sources = [piece.text for piece in self.pieces]
        shape = self.variable.spec.shape if self.steps else self.pieces[0].shape
        entry: Dict[str, Any] = {
            "source": sources[0] if len(sources) == 1 else sources,
            "dtype": self.variable.spec.dtype,
            "source_dtype": self.pieces[0].spec.dtype,
            "shape": list(shape or ()),
        }
        if self.steps:
            entry["steps"] = [step.text for step in self.steps]
        if self.reason:
            entry["reason"] = self.reason
        return entry


@dataclass(frozen=True)
class Dropped:
    """A checkpoint variable that is not in the bundle, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class WeightsUsed:
    """Which values the bundle has.

    Attributes:
        choice: "raw" or "ema" as asked for, "saver" when the graph's own saver maps averages to
            variables, "only" when the checkpoint has no averages.
        from_ema: the variables, by their name in the graph, that have their moving average.
        raw: those that have the value that training left.
    """

    choice: str = "only"
    from_ema: Tuple[str, ...] = ()
    raw: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, Any]:
        entry: Dict[str, Any] = {
            "choice": self.choice,
            "from_ema": len(self.from_ema),
            "raw": len(self.raw),
        }
        if self.from_ema and self.raw:
            entry["raw_variables"] = list(self.raw)
        return entry


@dataclass(frozen=True)
class Mapping:
    """Every checkpoint variable, either assigned or dropped; every graph variable, once."""

    assignments: Tuple[Assignment, ...]
    drops: Tuple[Dropped, ...]
    weights: WeightsUsed = WeightsUsed()
