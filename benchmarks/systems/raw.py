"""The ceiling of compute: arrays in memory, `make_callable`, the best batch size, no files.

    python -m benchmarks.systems.raw TASK [CALLERS INTRA_OP_THREADS]

On a machine of N cores, N callers whose ops use one thread each are faster than one whose ops
use N: no thread waits at the end of an op. One caller with the default is `raw_default`.
"""

from __future__ import annotations

import itertools
import sys
import threading
from typing import Any

import numpy as np

from batchinfer.arrow import pq
from benchmarks.systems.arrays import to_array
from benchmarks.systems.predictor import Predict, make_predictor
from benchmarks.task import KEY, OUTPUT, Task


def load(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Keys and inputs of every distinct row."""
    keys, inputs = [], []
    for path in task.distinct_files():
        table = pq.ParquetFile(path).read(columns=[KEY, task.column], use_threads=False)
        keys.append(table.column(KEY).to_numpy())
        inputs.append(to_array(table.column(task.column), task))
    return np.concatenate(keys), np.concatenate(inputs)


def predict_all(
    predict: Predict, inputs: np.ndarray, batch_rows: int, repeats: int, callers: int
) -> list[Any]:
    """Every batch `repeats` times, from `callers` threads; the predictions of the last round."""
    starts = range(0, len(inputs), batch_rows)
    results: list[Any] = [None] * len(starts)
    numbers = itertools.count()  # next() of it is one step under the interpreter's lock

    def call() -> None:
        while True:
            number = next(numbers)
            if number >= repeats * len(starts):
                return
            index = number % len(starts)
            results[index] = predict(inputs[starts[index] : starts[index] + batch_rows])

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if any(one is None for one in results):
        raise SystemExit("a caller failed; see above")
    return results


def main(task: Task, callers: int, intra_op_threads: int) -> None:
    keys, inputs = load(task)
    predict = make_predictor(task, intra_op_threads)
    predict(inputs[: task.batch_rows])
    task.mark("ready")
    task.mark("first_row")
    results = predict_all(predict, inputs, task.batch_rows, task.repeats, callers)
    task.mark("written", rows=len(inputs) * task.repeats)
    if task.save:
        np.savez(task.save, **{KEY: keys, OUTPUT: np.concatenate(results)})


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
