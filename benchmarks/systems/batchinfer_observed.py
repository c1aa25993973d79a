"""batchinfer with marks: `jobs/score.py` whose actors also say when they are ready.

    python -m benchmarks.systems.batchinfer_observed TASK FLAGS...

The flags are those of jobs/score.py, the path is the same to the last byte written; only the
scorer is wrapped, to mark the first predictions, or replaced by a simulated device.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Callable, Mapping

from batchinfer.actors import ScoringActor
from batchinfer.bundle import Bundle
from batchinfer.cluster import ray_backend
from benchmarks.systems.predictor import SimulatedDevice
from benchmarks.task import OUTPUT, TASK_VARIABLE, Task
from jobs import command, score


class SimulatedScorer:
    """A scorer whose device takes time and no CPU."""

    def __init__(self, task: Task, bundle: Bundle) -> None:
        self.signature = bundle.signature
        self.batch_rows = task.batch_rows
        self._device = SimulatedDevice(task.device_rows_per_s, task.num_outputs)

    def score(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        return {OUTPUT: self._device(next(iter(feeds.values())))}

    def close(self) -> None:
        self._device = None


class ObservedActor(ScoringActor):
    """A ScoringActor that marks, and that may have a simulated device."""

    def restore_scorer(self, bundle: Bundle, on_gpu: bool) -> Any:
        task = Task.from_json(os.environ[TASK_VARIABLE])
        if task.device_rows_per_s:
            scorer: Any = SimulatedScorer(task, bundle)
        else:
            scorer = super().restore_scorer(bundle, on_gpu)
        task.mark("ready")
        scorer.score = self._marked(scorer.score, task)
        return scorer

    def _marked(self, score: Callable[..., Any], task: Task) -> Callable[..., Any]:
        """Marks the first call that gave predictions of a shard, not of a batch size on trial."""
        called = []

        def marked(feeds: Mapping[str, Any]) -> Any:
            outputs = score(feeds)
            if self._settled and not called:
                called.append(True)
                task.mark("first_row")
            return outputs

        return marked


def main() -> None:
    os.environ[TASK_VARIABLE] = sys.argv.pop(1)
    command.run(score.read, lambda flags: score.score(flags, ray_backend(ObservedActor)))


if __name__ == "__main__":
    # This module must be importable by its name in the actors: not as __main__.
    from benchmarks.systems import batchinfer_observed

    batchinfer_observed.main()
