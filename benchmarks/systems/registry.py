"""The systems: the command of each, which bundle it runs, and how its run is read."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Callable, Mapping, Sequence

from benchmarks.measure import Measurement, Watched, from_marks, from_report
from benchmarks.task import KEY, Task

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class System:
    """One column of the comparison.

    Attributes:
        name: as `--systems` takes it.
        bundle: `plain`, the graph as it came, or `optimized`.
        command: of a Task and the model's input name; its process is the root of the tree.
        read: makes the Measurement of what was watched.
        predicts: whether its output is compared with raw's.
        needs_pandas: Ray Data imports it, and the first script is written with it.
    """

    name: str
    bundle: str
    command: Callable[[Task, str], Sequence[str]]
    read: Callable[[Watched, str, str], Measurement] = from_marks
    predicts: bool = True
    needs_pandas: bool = False


def _module(name: str, *arguments: object) -> Callable[[Task, str], Sequence[str]]:
    def command(task: Task, _: str) -> Sequence[str]:
        words = [sys.executable, "-m", f"benchmarks.systems.{name}", task.to_json()]
        return words + [str(argument) for argument in arguments]

    return command


def _flags(task: Task, input_name: str) -> list[str]:
    """What a user types: the rest is batchinfer's to choose. A simulated device is one actor's."""
    flags = ["--bundle", task.bundle, "--input", task.data, "--output", task.out]
    flags += ["--map", f"{input_name}={task.column}", "--keep", KEY, "--device", "cpu"]
    return flags + (["--batch-rows", str(task.batch_rows)] if task.device_rows_per_s else [])


def _score(task: Task, input_name: str) -> Sequence[str]:
    if task.device_rows_per_s:
        return _observed(task, input_name)
    command = [sys.executable, os.path.join(ROOT, "jobs", "score.py")]
    return command + _flags(task, input_name)


def _observed(task: Task, input_name: str) -> Sequence[str]:
    return [*_module("batchinfer_observed")(task, ""), *_flags(task, input_name)]


SYSTEMS: Mapping[str, System] = {
    one.name: one
    for one in (
        System("raw", "plain", _module("raw", CORES, 1), predicts=False),
        System("raw_default", "plain", _module("raw", 1, 0), predicts=False),
        System("raw_optimized", "optimized", _module("raw", CORES, 1), predicts=False),
        System("storage", "plain", _module("storage", CORES), predicts=False),
        System("naive", "plain", _module("naive"), needs_pandas=True),
        System("ray_data", "plain", _module("ray_data", "default"), needs_pandas=True),
        System("ray_data_tuned", "plain", _module("ray_data", "tuned"), needs_pandas=True),
        System("batchinfer_plain", "plain", _score, from_report),
        System("batchinfer", "optimized", _score, from_report),
        System("batchinfer_observed", "optimized", _observed, from_report),
    )
}
WITHOUT_MODEL = ("naive", "ray_data", "ray_data_tuned", "batchinfer")  # run a simulated device
