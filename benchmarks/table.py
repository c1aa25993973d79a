"""Results -> Markdown tables."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence

from benchmarks.rounds import Results
from benchmarks.targets import TARGETS

HEAD = (
    "system", "rows/s", "x raw", "CPU s/Mrow", "total CPU s", "total s", "peak MB",
    "first row s", "first object s", "max_absdiff", "n",
)  # fmt: skip


def results_table(results: Results, systems: Sequence[str]) -> str:
    """A row per system, medians over the rounds; `x raw` is paired within a round."""
    lines = [f"### {results.workload}: {results.rows:,} rows in {results.files:,} files", ""]
    lines += [_row(HEAD), _row(["---"] * len(HEAD))]
    lines += [_row(_cells(results, system)) for system in systems]
    lines += ["", _notes(results)]
    return "\n".join(lines) + "\n"


def _cells(results: Results, system: str) -> list[str]:
    if system in results.failures:
        return [system, "failed"] + [""] * (len(HEAD) - 2)

    def median(name: str, form: str) -> str:
        return _number(results.median(system, lambda one: getattr(one, name)), form)

    return [
        system,
        median("rows_per_s", ",.0f"),
        _number(results.paired([system, "raw"], lambda a, b: a / b), ".2f"),
        median("cpu_s_per_mrow", ".2f"),
        median("total_cpu_s", ".1f"),
        median("total_s", ".1f"),
        median("peak_mb", ",.0f"),
        median("first_row_s", ".1f"),
        median("first_object_s", ".1f"),
        _number(results.differences.get(system), ".1e"),
        str(len(results.of(system))),
    ]


def _notes(results: Results) -> str:
    lines = []
    bound = results.paired(["raw", "storage"], lambda raw, storage: 1 / (1 / raw + 1 / storage))
    if bound is not None:
        lines.append(f"Additive bound 1/(1/raw + 1/storage): {bound:,.0f} rows/s.")
    for system, tuning in results.tunings.items():
        blocks = f", {tuning.parallelism} blocks" if tuning.parallelism else ""
        lines.append(f"{system}: batches of {tuning.batch_rows} rows{blocks}.")
    lines += [f"{system} failed: {why.splitlines()[0]}" for system, why in results.failures.items()]
    stages = results.stages()
    if stages:
        lines.append(f"Stages of batchinfer, seconds over all threads and actors: {stages}.")
    return "\n".join(lines)


def targets_table(results: Mapping[str, Results]) -> str:
    """What is asked for beside what was reached."""
    lines = ["### Targets", "", _row(["workload", "figure", "asked", "found", ""])]
    lines.append(_row(["---"] * 5))
    return (
        "\n".join(lines + [one.line(results) for one in TARGETS if one.workload in results]) + "\n"
    )


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _number(value: Optional[float], form: str) -> str:
    return "-" if value is None else format(value, form)
