"""The script that one writes first: pandas in, feed_dict, pandas out, one file after another.

python -m benchmarks.systems.naive TASK
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pandas as pd

from benchmarks.systems.predictor import make_predictor, open_session
from benchmarks.task import KEY, OUTPUT, Task


def make_predict(task):
    """Array -> predictions, by feed_dict."""
    if task.device_rows_per_s:
        return make_predictor(task)
    session = open_session(task)
    return lambda batch: session.run(task.fetch, {task.feed: batch})


def main(task):
    os.makedirs(task.out)
    predict = make_predict(task)
    task.mark("ready")
    rows = 0
    for path in task.files():
        frame = pd.read_parquet(path, columns=[KEY, task.column])
        values = frame[task.column]
        stacked = values.values if task.dtype == "string" else np.stack(values)
        inputs = stacked if task.dtype == "string" else stacked.reshape(-1, *task.row_shape)
        parts = []
        for start in range(0, len(inputs), task.batch_rows):
            parts.append(predict(inputs[start : start + task.batch_rows]))
            if not rows and not start:
                task.mark("first_row")
        out = pd.DataFrame({KEY: frame[KEY], OUTPUT: list(np.concatenate(parts))})
        out.to_parquet(os.path.join(task.out, os.path.basename(path)))
        rows += len(frame)
    task.mark("written", rows=rows)


if __name__ == "__main__":
    main(Task.from_json(sys.argv[1]))
    os._exit(0)  # pyarrow 12 can hang at exit
