"""Systems in turn, in rounds whose order is reversed each time: A B C, C B A, ..."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from statistics import median
from typing import Callable, Mapping, Optional, Sequence

from benchmarks.measure import Measurement, RunFailedError
from benchmarks.one_run import run_once
from benchmarks.prepare import Prepared
from benchmarks.sweep import DEVICE_BATCH_ROWS, Tuning, tune
from benchmarks.systems.registry import SYSTEMS

Value = Callable[[Measurement], Optional[float]]
UNTUNED = Tuning(0, 0, 0.0)
CHOOSE_THEMSELVES = ("storage", "batchinfer", "batchinfer_plain", "batchinfer_observed")
SELF_TUNED = ("raw_optimized", "ray_data_tuned")  # the others take raw's batch size


@dataclass
class Results:
    """Every run of one workload.

    Attributes:
        rounds: one per round, measurements by system; a failed run is missing.
        differences: the largest from raw's predictions, by system.
        failures: what went wrong, by system.
        files: of the input.
    """

    workload: str
    rows: int
    files: int
    rounds: list[dict[str, Measurement]] = field(default_factory=list)
    differences: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    tunings: dict[str, Tuning] = field(default_factory=dict)

    def of(self, system: str) -> list[Measurement]:
        return [one[system] for one in self.rounds if system in one]

    def median(
        self, system: str, value: Callable[[Measurement], Optional[float]]
    ) -> Optional[float]:
        found = [value(one) for one in self.of(system)]
        known = [one for one in found if one is not None]
        return median(known) if known else None

    def paired(self, systems: Sequence[str], value: Callable[..., float]) -> Optional[float]:
        """The median over the rounds in which all of these ran, of a value of their rows/s."""
        pairs = [one for one in self.rounds if all(system in one for system in systems)]
        found = [value(*(one[system].rows_per_s for system in systems)) for one in pairs]
        return median(found) if found else None

    def stages(self) -> str:
        """`read 1.2, score 3.4`: medians of batchinfer's stages."""
        found = self.of("batchinfer")
        names = sorted({name for one in found for name in one.stages})
        return ", ".join(
            f"{name} {median(one.stages.get(name, 0.0) for one in found):.2f}" for name in names
        )


def measure(
    folder: str,
    prepared: Prepared,
    systems: Sequence[str],
    num_rounds: int,
    say: Callable[[str], None],
) -> Results:
    """Run every system `num_rounds` times; one that fails is said, and left out from then on."""
    results = Results(prepared.workload.name, prepared.rows, len(os.listdir(prepared.data)))
    results.tunings.update(_tunings(folder, prepared, systems, say))
    expected = os.path.join(folder, f"expected-{prepared.workload.name}.npz")
    for number in range(num_rounds):
        results.rounds.append({})
        for system in systems if number % 2 == 0 else list(reversed(systems)):
            if system not in results.failures:
                _measure_one(folder, prepared, system, number, expected, results, say)
    if os.path.exists(expected):
        os.remove(expected)
    return results


def _measure_one(folder, prepared, system, number, expected, results, say) -> None:
    tuning = results.tunings.get(system) or results.tunings.get("raw", UNTUNED)
    compare = "raw" in results.rounds[0] and number == 0
    try:
        measurement, difference = run_once(
            folder,
            prepared,
            SYSTEMS[system],
            tuning.batch_rows,
            tuning.parallelism or 16,
            save=expected if system == "raw" and number == 0 else None,
            expected=expected if compare else None,
        )
    except RunFailedError as error:
        results.failures[system] = str(error)
        say(f"{prepared.workload.name} {system}: {error}")
        return
    results.rounds[-1][system] = measurement
    if difference is not None:
        results.differences[system] = difference
    _keep(folder, prepared, system, number, measurement)
    say(
        f"{prepared.workload.name} round {number + 1} {system}: "
        f"{measurement.rows_per_s:,.0f} rows/s, {measurement.cpu_s_per_mrow:.2f} CPU s/Mrow, "
        f"total {measurement.total_s:.1f} s"
    )


def _tunings(folder, prepared, systems, say) -> Mapping[str, Tuning]:
    if prepared.workload.device_rows_per_s:
        found = {"raw": Tuning(DEVICE_BATCH_ROWS, 0, prepared.workload.device_rows_per_s)}
    else:
        takes_size = set(systems) - set(SELF_TUNED) - set(CHOOSE_THEMSELVES)
        found = {"raw": tune(folder, prepared, "raw", say)} if takes_size else {}
    for system in systems:
        if system in SELF_TUNED:
            found[system] = tune(folder, prepared, system, say)
    return found


def _keep(folder, prepared, system, number, measurement) -> None:
    """Every run as a line of runs.jsonl, so that an interrupted benchmark is not lost."""
    line = {"workload": prepared.workload.name, "round": number, "system": system}
    with open(os.path.join(folder, "runs.jsonl"), "a") as file:
        file.write(json.dumps({**line, **measurement.to_json()}) + "\n")
