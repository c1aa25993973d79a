"""A bundle's predictions and a reference's -> a report, its table, and the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from batchinfer.errors import ParityError
from conversion.proof.comparison import OutputParity, compare_output
from conversion.proof.tolerance import Tolerance


@dataclass(frozen=True)
class ParityReport:
    """All outputs of a model compared with a reference.

    Attributes:
        tolerance: what each value had to satisfy; whole numbers and strings had to be equal.
        outputs: one entry per output of either side, by name.
        about: what the reference is and why the tolerance is what it is; for the manifest.
        title: what was compared with what, for a person.
        warnings: what makes the report say less than it seems to.
    """

    tolerance: Tolerance
    outputs: Tuple[OutputParity, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
    title: str = "compared with the reference"
    warnings: Tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.outputs) and all(output.passed for output in self.outputs)

    def to_json(self) -> Dict[str, Any]:
        return {
            "passed": self.passed,
            **self.tolerance.to_json(),
            **self.about,
            "warnings": list(self.warnings),
            "outputs": {output.name: output.to_json() for output in self.outputs},
        }

    def text(self) -> str:
        """Title, tolerance and table."""
        why = self.about.get("tolerance_why", "")
        within = f"within {self.tolerance}" + (f" ({why})" if why else "")
        verdict = "passed" if self.passed else "FAILED"
        return f"{verdict}: {self.title}\n{within}\n{self.table()}"

    def table(self) -> str:
        """The report as lines for a person."""
        lines = [_line("output", "", *_COLUMNS)]
        for output in self.outputs:
            verdict = "ok" if output.passed else "FAILED"
            lines.append(
                _line(output.name, verdict, *[_short(getattr(output, name)) for name in _COLUMNS])
            )
            if output.problem:
                lines.append(f"    {output.problem}")
            if output.ties:
                lines.append(
                    f"    {output.ties} row(s) name another entry, which ties in the reference"
                )
        return "\n".join(lines)


_COLUMNS = {
    "max_absdiff": 11,
    "mean_absdiff": 12,
    "max_reldiff": 11,
    "worst_row": 9,
    "argmax_agreement": 16,
    "top_k_agreement": 15,
}


def _line(name: str, verdict: str, *cells: str) -> str:
    padded = [f"{cell:>{width}}" for cell, width in zip(cells, _COLUMNS.values())]
    return f"{name:<24} {verdict:<6} " + " ".join(padded)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def compare(
    found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Tolerance
) -> ParityReport:
    """Compare outputs by name; one that is on one side only fails."""
    outputs = [
        compare_output(name, found.get(name), expected.get(name), tolerance)
        for name in sorted(set(found) | set(expected))
    ]
    settled = [
        one if one.passed or one.problem else _settle_ties(one, found, expected, tolerance)
        for one in outputs
    ]
    return ParityReport(tolerance, tuple(settled))


def _settle_ties(
    output: OutputParity,
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    tolerance: Tolerance,
) -> OutputParity:
    """Let an output of class numbers pass where it only differs in ties of its own scores.

    Its scores are an output of which it is the argmax on both sides. A tie is a row in which
    the reference's scores of the two classes are nearer than rounding of both may move them.
    """
    one, other = np.asarray(found[output.name]), np.asarray(expected[output.name])
    if one.dtype.kind not in "iu" or other.dtype.kind not in "iu" or one.ndim != 1:
        return output
    for name in sorted(set(found) & set(expected)):
        sides = [np.asarray(side[name]) for side in (found, expected)]
        if not _scores_of(sides, (one, other)):
            continue
        scores = sides[1].astype(np.float64)
        rows = np.flatnonzero(one != other)
        gap = scores[rows, other[rows]] - scores[rows, one[rows]]
        allowed = 2 * np.asarray(tolerance.allowed(scores))[rows].max(axis=1)
        if bool(np.all(gap <= allowed)):
            return replace(output, passed=True, values_outside=0, ties=len(rows))
    return output


def _scores_of(sides: List[Any], classes: Tuple[Any, Any]) -> bool:
    """Whether the classes are the argmax of the scores, on both sides."""
    return all(
        scores.ndim == 2
        and scores.dtype.kind == "f"
        and scores.size > 0
        and len(scores) == len(chosen)
        and bool(np.array_equal(scores.argmax(axis=1), chosen))
        for scores, chosen in zip(sides, classes)
    )


def require(report: ParityReport, bundle: str) -> None:
    """Raise unless the report passed.

    Raises:
        ParityError: with the table.
    """
    if not report.passed:
        raise ParityError(
            f"the bundle does not reproduce its reference:\n{report.text()}\n{bundle} was not "
            f"written. {_advice(report)}--allow-parity-failure writes the bundle with this report "
            "in it."
        )


def _advice(report: ParityReport) -> str:
    """What helps where numbers differ; "" where another tolerance changes nothing."""
    failed = [one for one in report.outputs if not one.passed]
    rounded = [not one.problem and one.max_absdiff is not None for one in failed]
    if not failed or not all(rounded) or any(one.nan_mismatches for one in failed):
        return ""
    return (
        "A reference that was computed in bfloat16, as every TPU multiplies, needs --atol of "
        "about 1e-2; "
    )
