"""The batch size of a model on a device: measured with rows of the input, decided once for a run.

The first actor of a device type to be done writes what it found beside the run's state; all others,
and every later run on the same output, take that. So equal rows get equal bits on equal devices.
"""

from __future__ import annotations

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
STALE = 3  # doublings in a row that bring less end it
HOST_S = 0.001  # what handing on, padding and encoding a batch costs beside its run (measured)
NEAR = 1.05  # rates that are as good as equal
CONTENDER = 1.25  # times slower than the fastest: measured again
SIZE_S = 0.08  # that each size is run for at most at a time, and at least twice by each thread
SHARE = 0.005  # of the time that the run will take, for each size
MOST_SHARE = 0.02  # of it; a size whose runs would take longer is not tried
AGAIN_SHARE = 0.01  # of it, to measure the contenders again in turn
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
    """The largest size that is within 5 % of the fastest: fewer batches are surely less work."""
    return max(size for size, rate in rates.items() if rate * NEAR >= max(rates.values()))


def measure(
    scorer: Any,
    sample: Batch,
    lane: Lane,
    most_rows: int,
    num_rows: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Dict[int, float]:
    """Rows/s of each size, doubled until that thrice brings less than 5 %, or memory ends.

    Those that are about as fast as the fastest are then measured again in turn, as what else the
    machine does changes from one second to the next. The host's own work for a batch is counted in:
    a small model is else given batches so small that handing them on takes as long as running them.

    Args:
        scorer: its `batch_rows` and `halved` are left as they were.
        sample: rows of the input; they are repeated.
        lane: runs as many calls at once as scoring will.
        most_rows: that a batch of this run can have at all.
        num_rows: of the whole run: each size is measured for 1/200 of what it will take, but no
            longer than 80 ms, and the contenders again for 1/100 together; a size of which three
            runs would take more than 1/50 is not tried.
    """
    before = scorer.batch_rows
    trial = _Trial(scorer, sample, lane, num_rows, clock)
    try:
        _double(trial, _most_rows(sample, most_rows))
        trial.repeat()
    finally:
        scorer.batch_rows, scorer.halved = before, 0
    return trial.rates()


def _double(trial: _Trial, limit: int) -> None:
    size, stale = min(SMALLEST_ROWS, limit), 0
    while size <= limit and stale < STALE and trial.affords(size):
        fastest = max(trial.rates().values(), default=0.0)
        if not trial.run(size):
            return
        stale = 0 if trial.rate(size) > GAIN * fastest else stale + 1
        size *= 4 if trial.run_s(size) < QUICK_S else 2


class _Trial:
    """Sizes and how long their runs took."""

    def __init__(
        self, scorer: Any, sample: Batch, lane: Lane, num_rows: int, clock: Callable[[], float]
    ) -> None:
        self._scorer, self._sample, self._lane, self._clock = scorer, sample, lane, clock
        self._num_rows, self._began, self._spent_s = num_rows, clock(), 0.0
        self._feeds: Dict[int, Any] = {}
        self._times: Dict[int, List[float]] = {}

    def over(self) -> bool:
        return self._spent_s > BUDGET_S or self._clock() - self._began > LONGEST_S

    def affords(self, size: int) -> bool:
        """Whether the next size is worth its time: three runs, each at most so much longer."""
        if self.over() or not self._times:
            return not self.over()
        last = max(self._times)
        return 3 * self.run_s(last) * size / last <= MOST_SHARE * self._expected_s()

    def run_s(self, size: int) -> float:
        """Seconds of a run with every thread of the lane at work: the lower quartile.

        What else the machine does meanwhile, such as reading the first rows, makes runs longer,
        never shorter.
        """
        runs = sorted(self._times[size])
        return max(runs[len(runs) // 4], 1e-9)

    def rate(self, size: int) -> float:
        """Rows/s."""
        return size / (self.run_s(size) / self._lane.workers + HOST_S)

    def rates(self) -> Dict[int, float]:
        return {size: self.rate(size) for size in self._times}

    def run(self, size: int) -> bool:
        """Time a size; False if the device has no memory for it."""
        self._scorer.batch_rows = size
        if size not in self._feeds:
            self._feeds[size] = next(rebatch(itertools.repeat(self._sample), size)).feeds
            self._score(size)  # a library may choose its algorithms now, or XLA compile
        limit_s = min(SIZE_S, SHARE * self._expected_s()) if self._times else 0.0
        began = self._clock()
        times = self._timed(size, began + limit_s)
        self._spent_s += self._clock() - began
        if self._scorer.halved:
            return False
        self._times.setdefault(size, []).extend(times)
        return True

    def repeat(self) -> None:
        """The contenders in turn, from the largest on, for as long as that is worth it."""
        if self._scorer.halved or not self._times:
            return
        limit_s = self._spent_s + AGAIN_SHARE * self._expected_s()
        rates = self.rates()
        contenders = [n for n, rate in rates.items() if rate * CONTENDER >= max(rates.values())]
        for size in itertools.cycle(reversed(contenders)):
            if len(contenders) < 2 or self._spent_s > limit_s or self.over():
                return
            self.run(size)

    def _expected_s(self) -> float:
        """Of the whole run, by the fastest size so far."""
        return self._num_rows / max(self.rates().values())

    def _score(self, size: int) -> None:
        self._scorer.score(self._feeds[size])

    def _timed(self, size: int, until: float) -> List[float]:
        def repeat(_: int) -> List[float]:
            runs: List[float] = []
            while len(runs) < 2 or self._clock() < until:
                began = self._clock()
                self._score(size)
                runs.append(self._clock() - began)
            return runs

        return list(itertools.chain(*self._lane.map(repeat, range(self._lane.workers))))


def _most_rows(sample: Batch, most_rows: int) -> int:
    row_bytes = sum(_size(rows) for rows in sample.feeds.values()) // sample.num_rows
    return max(1, min(MOST_ROWS, most_rows, MOST_BYTES // max(1, row_bytes)))


def _size(rows: Any) -> int:
    """Bytes of an input's rows; those of Python's strings without their texts' own overhead."""
    values = getattr(rows, "values", rows)
    return sum(map(len, values.reshape(-1))) if values.dtype == object else int(values.nbytes)
