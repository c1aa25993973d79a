"""The batch size of a model on a device: measured with rows of the input, decided once for a run.

The first actor of a device type to be done writes what it found beside the run's state; all others,
and every later run on the same output, take that. So equal rows get equal bits on equal devices.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from batchinfer.batch import Batch, rebatch
from batchinfer.pipeline import Lane
from batchinfer.run_folder import STATE, RunFolder

LOG = logging.getLogger("batchinfer")
SMALLEST_ROWS = 8
MOST_ROWS = 1 << 16
MOST_BYTES = 128 << 20  # of one batch's inputs; about nine are in memory at once
GAIN = 1.05  # what a doubling must bring
HOST_S = 0.001  # what handing on, padding and encoding a batch costs beside its run (measured)
NEAR = 1.03  # rates that are as good as equal
SIZE_S = 0.08  # that each size is run for at most, and at least twice by each thread
SHARE = 0.005  # of the time that the run will take
QUICK_S = 0.001  # a run: the next size is four times this one, not twice
BUDGET_S = 3.0  # for all sizes, without the first run of each
LONGEST_S = 30.0  # with it: XLA compiles then, for 1 to 2 s a size


def settle(
    folder: RunFolder, device: str, measure: Callable[[], Optional[Dict[int, float]]]
) -> Optional[int]:
    """The rows of a batch that this run uses on this type of device.

    Args:
        device: its type, such as the GPU's name.
        measure: size -> rows/s; None where nothing could be measured, which decides nothing.
    """
    name = f"{STATE}/batch/{re.sub('[^A-Za-z0-9]+', '-', device).strip('-').lower()}.json"
    decided = folder.read_json(name)
    if decided is None:
        found = measure()
        if not found:
            return None
        record: Dict[str, Any] = {
            "device": device,
            "batch_rows": best(found),
            "rows_per_s": {str(size): round(rate, 1) for size, rate in found.items()},
        }
        LOG.info("batches of %d rows on %s: rows/s %s", record["batch_rows"], device, found)
        decided = record if folder.create_json(name, record) else folder.read_json(name)
    return int((decided or {})["batch_rows"])


def best(rates: Mapping[int, float]) -> int:
    """The smallest size that is within 3 % of the fastest."""
    return min(size for size, rate in rates.items() if rate * NEAR >= max(rates.values()))


def measure(
    scorer: Any,
    sample: Batch,
    lane: Lane,
    most_rows: int,
    num_rows: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[int, float]:
    """Rows/s of each size, doubled until that twice brings less than 5 %, or memory ends.

    The host's own work for a batch is counted in: a small model is else given batches so small that
    handing them on takes as long as running them.

    Args:
        scorer: its `batch_rows` and `halved` are left as they were.
        sample: rows of the input; they are repeated.
        lane: runs as many calls at once as scoring will.
        most_rows: that a batch of this run can have at all.
        num_rows: of the whole run: each size is measured for 1/200 of what it will take, but no
            longer than 80 ms.
    """
    rates: Dict[int, float] = {}
    before, started, spent_s, stale = scorer.batch_rows, clock(), 0.0, 0
    limit = _most_rows(sample, most_rows)
    size = min(SMALLEST_ROWS, limit)
    try:
        while size <= limit and stale < 2:
            scorer.batch_rows = size
            run = functools.partial(
                scorer.score, next(rebatch(itertools.repeat(sample), size)).feeds
            )
            run()  # a library may choose its algorithms now, or XLA compile
            size_s = min(SIZE_S, SHARE * num_rows / max(rates.values())) if rates else 0.0
            began = clock()
            run_s = _timed(run, size_s, lane, clock)
            spent_s += clock() - began
            if scorer.halved:
                break
            rate = size / (run_s / lane.workers + HOST_S)
            stale = 0 if rate > GAIN * max(rates.values(), default=0.0) else stale + 1
            rates[size] = rate
            if spent_s > BUDGET_S or clock() - started > LONGEST_S:
                break
            size *= 4 if run_s < QUICK_S * lane.workers else 2
    finally:
        scorer.batch_rows, scorer.halved = before, 0
    return rates


def _most_rows(sample: Batch, most_rows: int) -> int:
    row_bytes = sum(_size(rows) for rows in sample.feeds.values()) // sample.num_rows
    return max(1, min(MOST_ROWS, most_rows, MOST_BYTES // max(1, row_bytes)))


def _size(rows: Any) -> int:
    """Bytes of an input's rows; those of Python's strings without their texts' own overhead."""
    values = getattr(rows, "values", rows)
    return sum(map(len, values.reshape(-1))) if values.dtype == object else int(values.nbytes)


def _timed(run: Callable[[], Any], size_s: float, lane: Lane, clock: Callable[[], float]) -> float:
    """Seconds of a run with every thread of the lane at work: the lower quartile.

    What else the machine does meanwhile, such as reading the first rows, makes runs longer, never
    shorter.
    """
    until = clock() + size_s

    def repeat(_: int) -> List[float]:
        runs: List[float] = []
        while len(runs) < 2 or clock() < until:
            began = clock()
            run()
            runs.append(clock() - began)
        return runs

    runs = sorted(itertools.chain(*lane.map(repeat, range(lane.workers))))
    return max(runs[len(runs) // 4], 1e-9)
