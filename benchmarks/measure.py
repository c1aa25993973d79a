"""One command -> one Measurement: its process tree is watched from the fork to the last exit."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Mapping, Optional, Sequence

from benchmarks.output import parts
from benchmarks.process_tree import ProcessTree
from benchmarks.task import read_events

CPU_EVERY_S = 0.1
MEMORY_EVERY_S = 0.25
POLL_S = 0.02  # how soon a mark of the command's is noticed


class RunFailedError(Exception):
    """A system did not do its work: exit status, missing marks, or rows."""


@dataclass(frozen=True)
class Measurement:
    """How one run of one system went. Seconds are of the wall unless they say CPU.

    Attributes:
        rows: read and predicted.
        seconds: from `ready` (the model can be called) to `written` (all output is there).
        total_s: from the fork to the exit.
        cpu_s: CPU-seconds of the process tree between ready and written; `total_cpu_s` of all.
        peak_mb: of the tree, PSS.
        first_row_s, first_object_s: from the fork to the first predictions, and to the first
            output object that lies there whole.
        stages: batchinfer's own account, seconds over all threads and actors.
    """

    rows: int
    seconds: float
    total_s: float
    cpu_s: float
    total_cpu_s: float
    peak_mb: float
    first_row_s: Optional[float]
    first_object_s: Optional[float]
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds

    @property
    def cpu_s_per_mrow(self) -> float:
        return self.cpu_s / self.rows * 1e6

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Watched:
    """A command that has ended: what it printed, and CPU-seconds by time of day."""

    began: float
    ended: float
    stdout: str
    cpu: Sequence[tuple[float, float]]
    peak_mb: float

    def cpu_at(self, moment: float) -> float:
        """CPU-seconds of the tree at a time of day, on the line between two samples."""
        before = (self.began, 0.0)
        for sample in self.cpu:
            if sample[0] >= moment:
                share = (moment - before[0]) / max(sample[0] - before[0], 1e-9)
                return before[1] + max(0.0, share) * (sample[1] - before[1])
            before = sample
        return before[1]


def watch(
    command: Sequence[str], environment: Mapping[str, str], log: str, events: str, timeout_s: float
) -> Watched:
    """Run a command and sample its process tree; a new mark in `events` is sampled at once.

    Raises:
        RunFailedError: another exit status than 0, or it took longer than `timeout_s`.
    """
    tree, cpu, peak_mb = ProcessTree(), [], 0.0
    sampled = measured = 0.0
    size, status = 0, None
    with open(log + ".out", "wb+") as out, open(log, "wb") as messages:
        began = time.time()
        process = subprocess.Popen(
            command, stdout=out, stderr=messages, env=dict(environment), start_new_session=True
        )
        while status is None:
            status = tree.reap().get(process.pid)
            now, marks = time.time(), _size(events)
            if marks != size or now - sampled >= CPU_EVERY_S:
                cpu.append((now, tree.cpu_s()))
                sampled = now
            if marks != size or now - measured >= MEMORY_EVERY_S:
                peak_mb, measured = max(peak_mb, tree.memory_mb()), now
            size = marks
            if now - began > timeout_s:
                break
            time.sleep(POLL_S)
        process.returncode = status if status is not None else -1
        ended = time.time()
        tree.end(0.0 if status is None else 10.0)
        cpu.append((time.time(), tree.cpu_s()))
        out.seek(0)
        printed = out.read().decode()
    if status != 0:
        why = f"exit status {status}" if status is not None else f"more than {timeout_s:.0f} s"
        raise RunFailedError(f"{' '.join(command)}: {why}; {log} ends with\n{_tail(log)}")
    return Watched(began, ended, printed, cpu, peak_mb)


def from_marks(run: Watched, events: str, out: str) -> Measurement:
    """What a system says of itself with `Task.mark`.

    Raises:
        RunFailedError: it has not said when it was ready, or when all was written.
    """
    marks = read_events(events)
    if "ready" not in marks or "written" not in marks:
        raise RunFailedError(f"expected the marks ready and written; found {sorted(marks)}")
    rows = int(marks["written"]["rows"])
    first = marks["first_row"]["time"] if "first_row" in marks else None
    return _between(run, marks["ready"]["time"], marks["written"]["time"], rows, first, out)


def from_report(run: Watched, events: str, out: str) -> Measurement:
    """What batchinfer's report says: ready is `seconds_scoring` before it was written.

    The first row is only known of an observed run (`systems.batchinfer_observed`).
    """
    report = json.loads(run.stdout)
    written = os.stat(os.path.join(out, "_batchinfer", "report.json")).st_mtime
    ready = written - report["seconds_scoring"]
    marks = read_events(events)
    first = marks["first_row"]["time"] if "first_row" in marks else None
    found = _between(run, ready, written, report["rows_out"], first, out)
    return replace(found, stages=report["stage_seconds"])


def _between(
    run: Watched, ready: float, written: float, rows: int, first_row: Optional[float], out: str
) -> Measurement:
    first_object = _first_object(out)
    return Measurement(
        rows=rows,
        seconds=written - ready,
        total_s=run.ended - run.began,
        cpu_s=run.cpu_at(written) - run.cpu_at(ready),
        total_cpu_s=run.cpu[-1][1],
        peak_mb=run.peak_mb,
        first_row_s=None if first_row is None else first_row - run.began,
        first_object_s=None if first_object is None else first_object - run.began,
    )


def _first_object(folder: str) -> Optional[float]:
    """When the first Parquet file got its last byte, or its name: the later sets its ctime."""
    return min((os.stat(path).st_ctime for path in parts(folder)), default=None)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _tail(path: str, size_bytes: int = 2000) -> str:
    with open(path, "rb") as file:
        return file.read()[-size_bytes:].decode(errors="replace")
