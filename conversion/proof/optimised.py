"""A proven model -> its optimised graph in its place, where that passes the same comparison."""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Tuple

import numpy as np
from google.protobuf.message import EncodeError

from batchinfer.errors import BatchinferError
from batchinfer.tf1 import tf
from conversion.lowering import Lowered, Request
from conversion.model_files import score_folder
from conversion.optimize.optimise import optimise
from conversion.proof import parity
from conversion.proof.batch_probe import short
from conversion.proof.optimised_files import take_over, write
from conversion.proof.settle_batch import flat_outputs
from conversion.proof.tolerance import TOLERANCES
from conversion.source import Source

# What is raised where TensorFlow does not take a graph or cannot run it, or the disk is full.
_FAULTS = (
    BatchinferError, tf.errors.OpError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, RuntimeError, OSError, EncodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Reports:
    """The comparisons of one model's outputs, as the proof has them."""

    report: Optional[parity.ParityReport] = None
    against_float32: Optional[parity.ParityReport] = None
    against_bfloat16: Optional[parity.ParityReport] = None

    def failed(self) -> str:
        """The title of a report that decides and fails; "" when there is none."""
        deciding = (self.report, self.against_float32)
        return next((str(one.title) for one in deciding if one and not one.passed), "")

    def worse_than(self, other: Reports) -> str:
        """The title of a report that fails where the other passed; "" when there is none."""
        for name in ("report", "against_float32", "against_bfloat16"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and theirs.passed and not mine.passed:
                return str(mine.title)
        return ""


@dataclass(frozen=True)
class Plain:
    """A model that was written and compared as it came out of the surgery.

    Attributes:
        folder: holds it.
        source: what it was made of.
        exact: the model in float32; the one in the folder, unless that is in float16.
        request: how it was asked for.
        inputs: what it was scored with.
        outputs: what it gave.
        in_float32: what the model in float32 gave; the same, unless the folder's is in float16.
        reports: the comparisons.
    """

    folder: str
    source: Source
    exact: Lowered
    request: Request
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    in_float32: Mapping[str, Any]
    reports: Reports


@dataclass(frozen=True)
class Outcome:
    """What became of the attempt.

    Attributes:
        lowered: the optimised model, which is in the folder now; None where the plain one stays.
        reports: of the model in the folder.
        says: what was done, or why nothing was, in one sentence.
    """

    lowered: Optional[Lowered]
    reports: Reports
    says: str


def improve(plain: Plain, compare: Callable[[Mapping[str, Any]], Reports]) -> Outcome:
    """Put the optimised model in the place of the plain one, unless it would be worse.

    It is written beside, scored by the production scorer and compared as the plain one was, and
    with the plain one in float32. A report that fails where the plain one passed, an output that
    moved by more than rounding, or any fault on the way, leaves the plain one.

    Args:
        compare: the reports about some outputs.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_beside(plain))
            tried = _tried(folder, plain, compare)
        except _FAULTS as error:
            return _left(plain, short(error))
        if tried.lowered is not None:  # from here on a fault is one of the bundle itself
            take_over(folder, plain.folder)
        return tried


def _beside(plain: Plain) -> Any:
    parent = os.path.dirname(os.path.abspath(plain.folder))
    return tempfile.TemporaryDirectory(prefix=".optimised-", dir=parent)


def _left(plain: Plain, why: str) -> Outcome:
    """The plain model stays; without a reason there was nothing to do."""
    return Outcome(None, plain.reports, f"not optimised: {why}" if why else "nothing to optimise")


def _blind(plain: Plain) -> str:
    """Why a comparison with the plain model's outputs would not show a fault; "" where it would."""
    failed = plain.reports.failed()
    if failed:
        return f"the plain graph fails already, {failed}"
    flat = ", ".join(flat_outputs(plain.outputs))
    if flat:
        return f"output {flat} says the same of every row, or is not finite, and shows no fault"
    return ""


def _tried(folder: str, plain: Plain, compare: Callable[[Mapping[str, Any]], Reports]) -> Outcome:
    """The outcome, where the optimised model is in `folder` yet."""
    made = optimise(plain.exact, plain.request.precision, plain.request.target)
    why = _blind(plain) if made.worth_it else ""
    if why or not made.worth_it:
        return _left(plain, why)
    write(folder, plain.folder, plain.source, plain.exact, made)
    found = score_folder(folder, made.lowered.signature, plain.inputs)
    reports = compare(found)
    worse = reports.worse_than(plain.reports)
    if worse:
        return _left(plain, f"the optimised graph was worse {worse}")
    far = _far(plain, found)
    if far:
        return _left(plain, f"the optimised graph moved output {far} by more than rounding")
    says = f"{made.sentence()}; outputs moved by {_moved(plain.outputs, found):.1e} at most"
    return Outcome(made.lowered, reports, says)


def _far(plain: Plain, found: Mapping[str, Any]) -> str:
    """The outputs that optimisation moved by more than float32 rounds; "" when there are none.

    Rounding to float16 would hide a fault: there both models are compared before it.
    """
    if plain.request.precision == "float16":
        found = _in_float32(plain)
    compared = parity.compare(found, plain.in_float32, TOLERANCES["float32"])
    return ", ".join(one.name for one in compared.outputs if not one.passed)


def _in_float32(plain: Plain) -> Mapping[str, Any]:
    """What the optimised model gives with the same folds, but in float32."""
    made = optimise(plain.exact, plain.request.precision, plain.request.target, exact=True)
    with _beside(plain) as folder:
        write(folder, plain.folder, plain.source, plain.exact, made)
        return score_folder(folder, made.lowered.signature, plain.inputs)


def _moved(plain: Mapping[str, Any], found: Mapping[str, Any]) -> float:
    """The largest difference of any float output."""
    pairs: Tuple[Any, ...] = tuple((np.asarray(plain[name]), found[name]) for name in sorted(plain))
    sizes = [
        float(np.nanmax(np.abs(before - after)))
        for before, after in pairs
        if before.dtype.kind == "f" and before.size
    ]
    return max(sizes, default=0.0)
