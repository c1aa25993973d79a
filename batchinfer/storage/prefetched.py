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
        self._expected.append(_Windows(list(split(ranges)), self._executor, read, at_once))

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
    """Ranges of a file, each fetched once; those that touch each other are one run."""

    def __init__(self, ranges: List[Range], executor: Executor, read: Read, at_once: bool) -> None:
        self._ranges, self._starts = ranges, [start for start, _ in ranges]
        self._executor, self._read, self._at_once = executor, read, at_once
        self._coming: Dict[int, Future[bytes]] = {}
        if at_once:
            self._submit(0, len(ranges))

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
        last = number
        while last - number < AHEAD and self._touches(last):
            last += 1
        self._submit(number, last + 1)
        if number and self._touches(number - 1) and number - 1 in self._coming:
            self._coming.pop(number - 1).cancel()

    def _touches(self, number: int) -> bool:
        return self.next_start(self._starts[number], -1) == self._ranges[number][1]

    def _submit(self, first: int, stop: int) -> None:
        for number in range(first, stop):
            if number not in self._coming:
                self._coming[number] = self._executor.submit(self._read, *self._ranges[number])


def split(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges in order, small gaps read along, none longer than a window."""
    merged: List[Range] = []
    for start, stop in sorted(ranges):
        if merged and start - merged[-1][1] <= SMALLEST_GAP_BYTES:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    for start, stop in merged:
        for at in range(start, stop, WINDOW_BYTES):
            yield at, min(at + WINDOW_BYTES, stop)
