"""Run one system once, check what it wrote, and take it away again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Optional

from benchmarks.measure import Measurement, RunFailedError, watch
from benchmarks.output import parts
from benchmarks.prepare import Prepared
from benchmarks.systems.registry import ROOT, System
from benchmarks.task import TASK_VARIABLE

TIMEOUT_S = 900.0


def environment(folder: str) -> dict[str, str]:
    """The same for all: full priority for Ray's workers, the project and the peers' packages."""
    found = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RAY_ADDRESS", TASK_VARIABLE)
    }
    packages = os.path.join(folder, "packages")
    return {
        **found,
        "PYTHONPATH": os.pathsep.join([ROOT, packages] if os.path.isdir(packages) else [ROOT]),
        "RAY_worker_niceness": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run_once(
    folder: str,
    prepared: Prepared,
    system: System,
    batch_rows: int,
    parallelism: int = 16,
    save: Optional[str] = None,
    expected: Optional[str] = None,
) -> tuple[Measurement, Optional[float]]:
    """One Measurement, and the largest difference from raw's predictions where it was looked for.

    Args:
        save: where raw is to put its predictions.
        expected: where they are; None compares nothing.

    Raises:
        RunFailedError: the command failed, or rows are missing.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as place:
        out, events = os.path.join(place, "out"), os.path.join(place, "events")
        task = prepared.task(
            system.bundle,
            out,
            events,
            batch_rows=batch_rows,
            parallelism=parallelism,
            save=save,
        )
        command = system.command(task, prepared.input_name(system.bundle))
        log = os.path.join(folder, f"log-{prepared.workload.name}-{system.name}")
        run = watch(command, environment(folder), log, events, TIMEOUT_S)
        measurement = system.read(run, events, out)
        wanted = system.predicts and not prepared.workload.device_rows_per_s
        found = _look(out, expected if wanted else None) if parts(out) else {}
        _check_rows(prepared.rows, measurement.rows, found.get("rows", prepared.rows))
        return measurement, found.get("max_absdiff")


def _check_rows(expected: int, said: int, written: int) -> None:
    if not expected == said == written:
        raise RunFailedError(f"{expected} rows in, {said} said to be scored, {written} written")


def _look(out: str, expected: Optional[str]) -> dict[str, Any]:
    """What `benchmarks.compare` sees: a process of its own, that has to allow Ray's column type.

    Raises:
        RunFailedError: a key is missing, or was written twice.
    """
    command = [sys.executable, "-m", "benchmarks.compare", out] + ([expected] if expected else [])
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True)
    if run.returncode:
        raise RunFailedError(f"{out}: {run.stderr.decode().strip().splitlines()[-1]}")
    return json.loads(run.stdout)
