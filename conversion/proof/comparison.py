"""One output and its reference -> how far apart they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional

import numpy as np

from conversion.proof.strings import as_bytes
from conversion.proof.tolerance import Tolerance

TOP_K = 5


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
        mean_absdiff: the mean over all values; None without numbers, or where it is infinite.
        worst_row: the first row with the largest absolute difference; None when all agree.
        values_outside: how many values are not within the tolerance.
        nan_mismatches: how many values are NaN on one side only.
        argmax_agreement: share of the rows with the same largest entry; None for 1-D outputs.
        top_k_agreement: mean share of the reference's `TOP_K` largest entries of a row that are
            among the found ones; None for rows of `TOP_K` entries or fewer.
        ties: how many whole numbers differ only because the reference holds the two entries
            that they name within the tolerance of each other.
    """

    name: str
    passed: bool
    problem: str = ""
    rows: int = 0
    max_absdiff: Optional[float] = None
    max_reldiff: Optional[float] = None
    mean_absdiff: Optional[float] = None
    worst_row: Optional[int] = None
    values_outside: int = 0
    nan_mismatches: int = 0
    argmax_agreement: Optional[float] = None
    top_k_agreement: Optional[float] = None
    ties: int = 0

    def to_json(self) -> Dict[str, Any]:
        """Everything but the name, which is the key."""
        fields = asdict(self)
        del fields["name"]
        return fields


def compare_output(name: str, found: Any, expected: Any, tolerance: Tolerance) -> OutputParity:
    """Compare one output; None on one side means that it is missing there."""
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
    if found.dtype.kind in "iu":  # a class or an index is right or wrong
        tolerance = Tolerance(0.0, 0.0)
    return _compare_numbers(name, found, expected, tolerance)


def _compare_exactly(name: str, found: Any, expected: Any) -> OutputParity:
    """Strings and booleans: equal or not."""
    if found.dtype.kind != "b" or expected.dtype.kind != "b":
        found, expected = (as_bytes(array) for array in (found, expected))
    differs = found != expected
    outside = int(np.count_nonzero(differs))
    return OutputParity(
        name,
        passed=not outside and len(expected) > 0,
        problem=_no_rows(expected),
        rows=len(expected),
        worst_row=int(np.argwhere(differs)[0][0]) if outside else None,
        values_outside=outside,
    )


def _compare_numbers(name: str, found: Any, expected: Any, tolerance: Tolerance) -> OutputParity:
    one, other = found.astype(np.float64), expected.astype(np.float64)
    nan_mismatches = int(np.count_nonzero(np.isnan(one) != np.isnan(other)))
    # Compared before the conversion: two int64 can be one float64. NaN equals nothing.
    equal = found == expected
    with np.errstate(invalid="ignore", divide="ignore"):
        absdiff = np.where(equal, 0.0, np.abs(one - other))
        reldiff = np.where(equal, 0.0, absdiff / np.abs(other))
        within = np.isfinite(other) & (absdiff <= tolerance.allowed(other))
        outside = ~equal & (~within | (found.dtype.kind in "iu"))
    absdiff[np.isnan(absdiff)] = np.inf
    reldiff[np.isnan(reldiff)] = np.inf
    return OutputParity(
        name,
        passed=not outside.any() and len(expected) > 0,
        problem=_no_rows(expected) or _no_numbers(other),
        rows=len(expected),
        max_absdiff=_finite(absdiff.max(initial=0.0)),
        max_reldiff=_finite(reldiff.max(initial=0.0)),
        mean_absdiff=_finite(absdiff.mean()) if absdiff.size else 0.0,
        worst_row=int(np.argwhere(absdiff == absdiff.max())[0][0]) if absdiff.any() else None,
        values_outside=int(np.count_nonzero(outside)),
        nan_mismatches=nan_mismatches,
        argmax_agreement=argmax_agreement(one, other),
        top_k_agreement=top_k_agreement(one, other),
    )


def argmax_agreement(found: Any, expected: Any) -> Optional[float]:
    if found.ndim < 2 or not found.size:
        return None
    one, other = (array.reshape(len(array), -1).argmax(axis=1) for array in (found, expected))
    return float(np.mean(one == other))


def top_k_agreement(found: Any, expected: Any, k: int = TOP_K) -> Optional[float]:
    if found.ndim < 2 or not found.size or found[0].size <= k:
        return None
    best = [
        np.argpartition(-array.reshape(len(array), -1), k - 1, axis=1)[:, :k]
        for array in (found, expected)
    ]
    shared = [len(set(one) & set(other)) for one, other in zip(*best)]
    return float(np.mean(shared)) / k


def _no_rows(expected: Any) -> str:
    return "" if len(expected) else "no rows to compare"


def _no_numbers(expected: Any) -> str:
    count = int(np.count_nonzero(np.isnan(expected)))
    return f"{count} value(s) of the reference are NaN, which proves nothing" if count else ""


def _numeric(array: Any) -> bool:
    return array.dtype.kind in "iuf"


def _finite(value: Any) -> Optional[float]:
    """JSON has no infinity."""
    return float(value) if np.isfinite(value) else None
