"""A bundle's predictions and a reference's -> per output, how far apart they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError, ParityError
from conversion.reference import as_bytes

# |found - expected| <= atol + rtol * |expected|, as numpy.allclose has it. float32 on another
# device gave differences up to 2.5e-7 on probabilities; bfloat16 arithmetic needs about 1e-2.
DEFAULT_ATOL = 1e-5
DEFAULT_RTOL = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """How far a value may be from its reference: `atol + rtol * |reference|`."""

    atol: float = DEFAULT_ATOL
    rtol: float = DEFAULT_RTOL

    def __post_init__(self) -> None:
        if not (0 <= self.atol < float("inf") and 0 <= self.rtol < float("inf")):
            raise InputError(f"atol and rtol must be 0 or more and finite; found {self}")


DEFAULT_TOLERANCE = Tolerance()


@dataclass(frozen=True)
class OutputParity:
    """One output compared with its reference.

    Attributes:
        name: the output.
        passed: every value is within the tolerance, and nothing is wrong with the whole.
        problem: what is wrong with the whole, such as a missing output; "" when nothing is.
        rows: rows compared.
        max_absdiff: the smallest atol that would pass with rtol 0; None without numbers.
        max_reldiff: the smallest rtol that would pass with atol 0; None without numbers, or
            where a reference value of 0 differs.
        worst_row: the first row with the largest absolute difference; None when all agree.
        values_outside: how many values are not within the tolerance.
        nan_mismatches: how many values are NaN on one side only.
        argmax_agreement: share of the rows with the same largest entry; None for 1-D outputs.
    """

    name: str
    passed: bool
    problem: str = ""
    rows: int = 0
    max_absdiff: Optional[float] = None
    max_reldiff: Optional[float] = None
    worst_row: Optional[int] = None
    values_outside: int = 0
    nan_mismatches: int = 0
    argmax_agreement: Optional[float] = None


@dataclass(frozen=True)
class ParityReport:
    """All outputs of a model compared with a reference."""

    atol: float
    rtol: float
    outputs: Tuple[OutputParity, ...]

    @property
    def passed(self) -> bool:
        return bool(self.outputs) and all(output.passed for output in self.outputs)

    def to_json(self) -> Dict[str, Any]:
        outputs = {output.name: asdict(output) for output in self.outputs}
        for fields in outputs.values():
            del fields["name"]
        return {"passed": self.passed, "atol": self.atol, "rtol": self.rtol, "outputs": outputs}

    def table(self) -> str:
        """The report as lines for a person."""
        lines = [
            f"{'output':<24} {'':6} {'max_absdiff':>11} {'max_reldiff':>11} {'row':>7}  argmax"
        ]
        for output in self.outputs:
            verdict = "ok" if output.passed else "FAILED"
            lines.append(
                f"{output.name:<24} {verdict:<6} {_short(output.max_absdiff):>11} "
                f"{_short(output.max_reldiff):>11} {_short(output.worst_row):>7}  "
                f"{_short(output.argmax_agreement)}"
            )
            if output.problem:
                lines.append(f"    {output.problem}")
        return "\n".join(lines)


def compare(
    found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Tolerance
) -> ParityReport:
    """Compare outputs by name; one that is on one side only fails."""
    outputs = tuple(
        _compare_output(name, found.get(name), expected.get(name), tolerance)
        for name in sorted(set(found) | set(expected))
    )
    return ParityReport(tolerance.atol, tolerance.rtol, outputs)


def _compare_output(name: str, found: Any, expected: Any, tolerance: Tolerance) -> OutputParity:
    if found is None:
        return OutputParity(name, False, "the reference has it; the bundle does not give it")
    if expected is None:
        return OutputParity(name, False, "the bundle gives it; the reference does not have it")
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        problem = f"expected shape {list(expected.shape)}, found {list(found.shape)}"
        return OutputParity(name, False, problem, rows=len(expected) if expected.ndim else 0)
    if not (_numeric(found) and _numeric(expected)):
        return _compare_exactly(name, found, expected)
    return _compare_numbers(name, found, expected, tolerance)


def _compare_exactly(name: str, found: Any, expected: Any) -> OutputParity:
    """Strings and booleans: equal or not."""
    if found.dtype.kind != "b" or expected.dtype.kind != "b":
        found, expected = (as_bytes(array) for array in (found, expected))
    differs = found != expected
    outside = int(np.count_nonzero(differs))
    return OutputParity(
        name,
        passed=not outside,
        rows=len(expected),
        worst_row=int(np.argwhere(differs)[0][0]) if outside else None,
        values_outside=outside,
    )


def _compare_numbers(name: str, found: Any, expected: Any, tolerance: Tolerance) -> OutputParity:
    one, other = found.astype(np.float64), expected.astype(np.float64)
    nan_mismatches = int(np.count_nonzero(np.isnan(one) != np.isnan(other)))
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", divide="ignore"):
        absdiff = np.where(equal, 0.0, np.abs(one - other))
        reldiff = np.where(equal, 0.0, absdiff / np.abs(other))
        allowed = tolerance.atol + tolerance.rtol * np.abs(other)
        outside = ~(equal | (np.isfinite(other) & (absdiff <= allowed)))
    absdiff[np.isnan(absdiff)] = np.inf
    reldiff[np.isnan(reldiff)] = np.inf
    return OutputParity(
        name,
        passed=not outside.any(),
        problem="no rows to compare" if not len(expected) else "",
        rows=len(expected),
        max_absdiff=_finite(absdiff.max(initial=0.0)),
        max_reldiff=_finite(reldiff.max(initial=0.0)),
        worst_row=int(np.argwhere(absdiff == absdiff.max())[0][0]) if absdiff.any() else None,
        values_outside=int(np.count_nonzero(outside)),
        nan_mismatches=nan_mismatches,
        argmax_agreement=_argmax_agreement(one, other),
    )


def _argmax_agreement(found: Any, expected: Any) -> Optional[float]:
    if found.ndim < 2 or not found.size:
        return None
    one, other = (array.reshape(len(array), -1).argmax(axis=1) for array in (found, expected))
    return float(np.mean(one == other))


def _numeric(array: Any) -> bool:
    return array.dtype.kind in "iuf"


def _finite(value: float) -> Optional[float]:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def require(report: ParityReport, bundle: str) -> None:
    """Raise unless the report passed.

    Raises:
        ParityError: with the table.
    """
    if not report.passed:
        raise ParityError(
            f"the bundle does not reproduce the reference within atol {report.atol:g} and rtol "
            f"{report.rtol:g}:\n{report.table()}\n{bundle} was not written. A reference that was "
            "computed in bfloat16 needs --atol of about 1e-2; --allow-parity-failure writes the "
            "bundle with this report in it."
        )
