"""A file in an object store whose next bytes are on their way while the last ones are decoded."""

from __future__ import annotations

import bisect
from collections import deque
from concurrent.futures import Executor, Future
from typing import Callable, Deque, Dict, Iterable, Iterator, List, Sequence, Tuple

from batchinfer.storage.store import RangeReader

Range = Tuple[int, int]  # start and stop, half open
Read = Callable[[int, int], bytes]

WINDOW_BYTES = 8 << 20  # one request: about 0.1 s, of which the store's latency is a third
SMALLEST_GAP_BYTES = 1 << 20  # read along rather than asked for anew
AHEAD = 3  # windows behind the one that is read, where not all are fetched at once
EXPECTED_AT_ONCE = 2  # sets of ranges: the one that is read, and the next


class Prefetched(RangeReader):
    """Fetches the ranges that it is told to expect on an executor's threads.

    One connection to an object store gives 90 MB/s, a GPU may need ten times that. Other ranges are
    read when they are asked for. Reads come from one thread at a time.
    """

    def __init__(self, source: RangeReader, executor: Executor) -> None:
        super().__init__(source.store, source.info)
        self._executor = executor
        self._expected: Deque[_Windows] = deque()

    def expect(self, ranges: Sequence[Range], at_once: bool) -> None:
        """Say what will be read next.

        Args:
            at_once: fetch it all now; or else, as it is read, a few windows ahead.
        """
        if len(self._expected) == EXPECTED_AT_ONCE:
            self._expected.popleft().drop()
        read = super().read_range
        runs = together(ranges) if at_once else sorted(ranges)
        self._expected.append(_Windows(runs, self._executor, read, at_once))

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes [start, end)."""
        parts, position = [], start
        while position < end:
            windows = next((one for one in self._expected if one.index(position) >= 0), None)
            if windows is None:
                stop = min([end, *(one.next_start(position, end) for one in self._expected)])
                parts.append(super().read_range(position, stop))
            else:
                parts.append(windows.take(position, end))
            position += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        for windows in self._expected:
            windows.drop()
        super().close()


class _Windows:
    """Runs of bytes of a file, fetched in windows, each of them once.

    Args:
        runs: in order; each is read from its start to its end, several of them in turn.
    """

    def __init__(
        self, runs: Sequence[Range], executor: Executor, read: Read, at_once: bool
    ) -> None:
        self._ranges: List[Range] = []
        self._runs: List[int] = []  # of each window
        for number, run in enumerate(runs):
            windows = list(split(*run))
            self._ranges += windows
            self._runs += [number] * len(windows)
        self._starts = [start for start, _ in self._ranges]
        self._executor, self._read, self._at_once = executor, read, at_once
        self._coming: Dict[int, Future[bytes]] = {}
        if at_once:
            self._submit(0, len(self._ranges))

    def index(self, position: int) -> int:
        """Number of the window that holds this byte, or -1."""
        number = bisect.bisect_right(self._starts, position) - 1
        return number if number >= 0 and position < self._ranges[number][1] else -1

    def next_start(self, position: int, otherwise: int) -> int:
        """Where the first window behind this byte begins."""
        number = bisect.bisect_right(self._starts, position)
        return self._starts[number] if number < len(self._starts) else otherwise

    def take(self, position: int, end: int) -> bytes:
        """The bytes from `position` to `end`, or to the end of the window."""
        number = self.index(position)
        self._submit(number, number + 1)
        if not self._at_once:
            self._move(number)
        start = self._starts[number]
        return self._coming[number].result()[position - start : end - start]

    def drop(self) -> None:
        """Give up what is on its way."""
        for future in self._coming.values():
            future.cancel()
        self._coming = {}

    def _move(self, number: int) -> None:
        """Fetch the next windows of the run, and drop the one behind."""
        run = self._runs[number]
        self._submit(number, min(number + AHEAD + 1, bisect.bisect_right(self._runs, run)))
        if number and self._runs[number - 1] == run and number - 1 in self._coming:
            self._coming.pop(number - 1).cancel()

    def _submit(self, first: int, stop: int) -> None:
        for number in range(first, stop):
            if number not in self._coming:
                self._coming[number] = self._executor.submit(self._read, *self._ranges[number])


def together(ranges: Iterable[Range]) -> List[Range]:
    """Ranges in order, small gaps read along."""
    merged: List[Range] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= SMALLEST_GAP_BYTES:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def split(start: int, stop: int) -> Iterator[Range]:
    """Windows of a range."""
    for at in range(start, stop, WINDOW_BYTES):
        yield at, min(at + WINDOW_BYTES, stop)
