"""What is tried once for each workload and kept: raw's batch size, Ray Data's batch and blocks.

Kept in sweep.json below the benchmark's folder; delete the file to try again, as one has to on
another machine.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Callable, Sequence

from benchmarks.one_run import run_once
from benchmarks.prepare import Prepared, prepare, read_json
from benchmarks.systems.registry import SYSTEMS

RAW_SCALE = 0.03  # of the workload's rows are in memory while batch sizes are tried
DEVICE_BATCH_ROWS = 8192  # of a simulated device, for every system


@dataclass(frozen=True)
class Tuning:
    """The best of what was tried."""

    batch_rows: int
    parallelism: int
    rows_per_s: float


def tune(folder: str, prepared: Prepared, name: str, say: Callable[[str], None]) -> Tuning:
    """The best settings of `raw`, `raw_optimized` or `ray_data_tuned` for a workload."""
    path = os.path.join(folder, "sweep.json")
    workload = prepared.workload
    key = f"{workload.name}/{name}"
    known = read_json(path)
    if key not in known:
        say(f"trying settings of {name} for {workload.name}, once")
        try_all = _try_ray_data if name == "ray_data_tuned" else _try_raw
        tuning = try_all(folder, prepared, name)
        say(f"  took {tuning}")
        known = {**read_json(path), key: tuning.__dict__}
        with open(path + ".new", "w") as file:
            json.dump(known, file, indent=1, sort_keys=True)
        os.replace(path + ".new", path)
    return Tuning(**known[key])


def _try_raw(folder: str, prepared: Prepared, name: str) -> Tuning:
    workload = prepared.workload
    few = prepare(folder, workload, min(RAW_SCALE, prepared.rows / workload.rows), prepared.bundles)
    repeats = max(1, workload.sweep_rows // few.rows)
    few = replace(few, repeats=repeats, rows=few.rows * repeats)  # which raw does in memory
    rates = []
    for batch_rows in workload.batches * 2:
        measurement, _ = run_once(folder, few, SYSTEMS[name], batch_rows)
        rates.append((measurement.rows_per_s, batch_rows))
    rate, batch_rows = max(rates)
    return Tuning(batch_rows, 0, rate)


def _try_ray_data(folder: str, prepared: Prepared, name: str) -> Tuning:
    """Blocks first, which matter most, at the first batch size; then batch sizes."""
    workload = prepared.workload

    def best(pairs: Sequence[tuple[int, int]]) -> Tuning:
        tried = []
        for batch_rows, blocks in pairs:
            measurement, _ = run_once(folder, prepared, SYSTEMS[name], batch_rows, blocks)
            tried.append((measurement.rows_per_s, batch_rows, blocks))
        rate, batch_rows, blocks = max(tried)
        return Tuning(batch_rows, blocks, rate)

    if workload.device_rows_per_s:
        return best([(DEVICE_BATCH_ROWS, blocks) for blocks in workload.ray_blocks])
    first, *others = workload.ray_batches
    found = best([(first, blocks) for blocks in workload.ray_blocks])
    rest = [best([(batch_rows, found.parallelism)]) for batch_rows in others]
    return max([found, *rest], key=lambda one: one.rows_per_s)
