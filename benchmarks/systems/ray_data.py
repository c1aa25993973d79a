"""Ray Data: read_parquet -> map_batches(actor pool) -> write_parquet.

    python -m benchmarks.systems.ray_data TASK default|tuned

`default` is what its user guide shows: numpy batches of the default size, one actor.
`tuned` is what an expert makes of it: Arrow batches without a copy, sizes and blocks swept for
each workload, two actors whose ops use one thread each (one for a simulated device: there is
one device), output without dictionary.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import ray
from ray.data import ActorPoolStrategy

from benchmarks.output import count_rows
from benchmarks.systems.arrays import allow_tensor_type, to_array, to_table
from benchmarks.systems.predictor import make_predictor
from benchmarks.task import KEY, OUTPUT, Task

allow_tensor_type()  # in the workers, which import this module, too


class NumpyPredictor:
    """A batch is a dict of arrays; a list column comes as an array of arrays."""

    def __init__(self, task: Task) -> None:
        self._task, self._called = task, False
        self._predict = make_predictor(task)
        task.mark("ready")

    def __call__(self, batch):
        values = batch[self._task.column]
        if self._task.dtype != "string":
            values = np.stack(values).reshape(-1, *self._task.row_shape)
        result = {KEY: batch[KEY], OUTPUT: self._predict(values)}
        self._first()
        return result

    def _first(self):
        if not self._called:
            self._task.mark("first_row")
        self._called = True


class ArrowPredictor(NumpyPredictor):
    """A batch is an Arrow table."""

    def __init__(self, task: Task) -> None:
        self._task, self._called = task, False
        self._predict = make_predictor(task, intra_op_threads=1)
        task.mark("ready")

    def __call__(self, batch):
        predictions = self._predict(to_array(batch.column(self._task.column), self._task))
        self._first()
        return to_table(batch.column(KEY), predictions)


def default(task: Task) -> None:
    dataset = ray.data.read_parquet(task.data, columns=[KEY, task.column])
    dataset.map_batches(
        NumpyPredictor, fn_constructor_args=(task,), compute=ActorPoolStrategy(size=1)
    ).write_parquet(task.out)


def tuned(task: Task) -> None:
    actors = 1 if task.device_rows_per_s else os.cpu_count()
    dataset = ray.data.read_parquet(
        task.data, columns=[KEY, task.column], parallelism=task.parallelism
    )
    dataset.map_batches(
        ArrowPredictor,
        fn_constructor_args=(task,),
        compute=ActorPoolStrategy(size=actors),
        batch_format="pyarrow",
        batch_size=task.batch_rows,
        zero_copy_batch=True,
        num_cpus=0.5,  # leaves cores for the tasks that read and write
    ).write_parquet(task.out, use_dictionary=False)


def main(task: Task, variant: str) -> None:
    os.makedirs(task.out)
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    {"default": default, "tuned": tuned}[variant](task)
    task.mark("written", rows=count_rows(task.out))
    ray.shutdown()


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]), sys.argv[2])
    sys.stdout.flush()
    os._exit(0)
