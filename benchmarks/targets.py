"""What issue 4 asks for, and what a run of the benchmark reached: `reached` or `short`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping, Optional

from benchmarks.rounds import Results
from benchmarks.workloads import DEVICE_ROWS_PER_S

Found = Callable[[Results], Optional[float]]


@dataclass(frozen=True)
class Target:
    """One figure.

    Attributes:
        workload: of which it is taken.
        text: what it is.
        limit: what is asked for; `at_least` says on which side.
        found: takes it from the results; None when what it needs was not run.
    """

    workload: str
    text: str
    limit: float
    at_least: bool
    found: Found

    def line(self, results: Mapping[str, Results]) -> str:
        """`| workload | text | asked | found | reached |`."""
        found = self.found(results[self.workload])
        asked = f"{'>=' if self.at_least else '<='} {self.limit:g}"
        if found is None:
            return f"| {self.workload} | {self.text} | {asked} | - | not measured |"
        good = found >= self.limit if self.at_least else found <= self.limit
        verdict = "reached" if good else "**short**"
        return f"| {self.workload} | {self.text} | {asked} | {found:.3g} | {verdict} |"


def _ratio(system: str, other: str) -> Found:
    return lambda results: results.paired([system, other], lambda a, b: a / b)


def _of_additive_bound(system: str) -> Found:
    """Of what a machine can do whose cores compute and read and write in turn."""
    return lambda results: results.paired(
        [system, "raw", "storage"], lambda found, raw, storage: found * (1 / raw + 1 / storage)
    )


def _figure(system: str, name: str) -> Found:
    return lambda results: results.median(system, lambda one: getattr(one, name))


def _of_device(results: Results) -> Optional[float]:
    return results.median("batchinfer", lambda one: one.rows_per_s / DEVICE_ROWS_PER_S)


def _ms_per_file(results: Results) -> Optional[float]:
    return results.median("batchinfer", lambda one: one.seconds * 1000 / results.files)


IMAGE, TEXT, TABULAR = "image", "text", "tabular"
OURS, SAME = "batchinfer", "batchinfer_plain"  # the optimised graph, and the one that raw runs
TARGETS = (
    Target(IMAGE, "rows/s, x raw, same graph", 0.95, True, _ratio(SAME, "raw")),
    Target(IMAGE, "rows/s, x raw, optimised graph", 1.0, True, _ratio(OURS, "raw")),
    Target(TEXT, "rows/s, x raw, same graph", 0.95, True, _ratio(SAME, "raw")),
    Target(TEXT, "rows/s, x raw, optimised graph", 1.0, True, _ratio(OURS, "raw")),
    Target(
        TABULAR, "rows/s, x 1/(1/raw + 1/storage), same graph", 0.9, True, _of_additive_bound(SAME)
    ),
    Target(TABULAR, "CPU s per million rows", 2.0, False, _figure(OURS, "cpu_s_per_mrow")),
    Target(TABULAR, "rows/s, x tuned Ray Data", 1.3, True, _ratio(OURS, "ray_data_tuned")),
    Target(TABULAR, "rows/s, x Ray Data's defaults", 4.0, True, _ratio(OURS, "ray_data")),
    Target(TABULAR, "peak MB of the tree", 1000, False, _figure(OURS, "peak_mb")),
    Target(
        TABULAR, "s to the first row", 5.0, False, _figure("batchinfer_observed", "first_row_s")
    ),
    Target("device", "rows/s, x the device's rate", 0.97, True, _of_device),
    Target("small_files", "ms per file of 100 rows", 0.8, False, _ms_per_file),
)
