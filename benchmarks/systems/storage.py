"""The ceiling of input and output: read every column needed, write predictions, no model.

    python -m benchmarks.systems.storage TASK THREADS

Each thread takes the next file. The predictions are seeded noise of the model's shape, written
without dictionary and with snappy, which measured cheapest.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from batchinfer.arrow import pq
from benchmarks.systems.arrays import row_groups, to_array, to_table
from benchmarks.task import KEY, Task

NOISE_ROWS = 100_000  # more than a codec's window


def copy(path: str, task: Task, noise: np.ndarray) -> int:
    """Read one file and write what would be predicted of it; returns its rows."""
    rows, writer = 0, None
    for table in row_groups(path, task):
        inputs = to_array(table.column(task.column), task)
        shape = (len(inputs), task.num_outputs)
        predictions = to_table(table.column(KEY), np.resize(noise, shape))
        if writer is None:
            target = os.path.join(task.out, os.path.basename(path))
            writer = pq.ParquetWriter(target, predictions.schema, use_dictionary=False)
        writer.write_table(predictions)
        rows += len(inputs)
    if writer is not None:
        writer.close()
    return rows


def main(task: Task, threads: int) -> None:
    os.makedirs(task.out)
    noise = np.random.RandomState(20).rand(NOISE_ROWS, task.num_outputs).astype(np.float32)
    task.mark("ready")
    with ThreadPoolExecutor(threads) as pool:
        rows = sum(pool.map(lambda path: copy(path, task, noise), task.files()))
    task.mark("written", rows=rows)


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)  # pyarrow 12 can hang at exit
