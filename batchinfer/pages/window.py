"""The bytes of a column chunk in order: read as they are needed, or fetched ahead in windows."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Executor, Future
from typing import Any, Callable, Deque

Read = Callable[[int, int], Any]  # (start, end) -> those bytes


class Direct:
    """Reads exactly what is asked for: a read costs nothing but the copy, as on a local disk.

    Args:
        read: gives the bytes [start, end).
        start, stop: of the column chunk.
    """

    def __init__(self, read: Read, start: int, stop: int) -> None:
        self._read, self._position, self._stop = read, start, stop

    def peek(self, size: int) -> memoryview:
        """The next `size` bytes, fewer at the end; they stay where they are."""
        end = min(self._position + size, self._stop)
        return _unsigned(self._read(self._position, end))

    def take(self, size: int) -> memoryview:
        """The next `size` bytes.

        Raises:
            ValueError: there are fewer.
        """
        found = self.peek(size)
        self._position += _whole(found, size)
        return found

    def skip(self, size: int) -> None:
        self._position += size

    def close(self) -> None:
        """Nothing is on its way."""


class Ahead:
    """Fetches windows ahead of the reader, several at once: a read waits for a network.

    Args:
        read: as of `Direct`, but called from the executor's threads.
        size: bytes of one window.
        ahead: windows on their way while one is decoded.
    """

    def __init__(
        self, read: Read, start: int, stop: int, size: int, executor: Executor, ahead: int
    ) -> None:
        self._read, self._executor, self._ahead = read, executor, ahead
        self._ranges = ((at, min(at + size, stop)) for at in range(start, stop, size))
        self._coming: Deque[Future[Any]] = deque()
        self._data = memoryview(b"")

    def peek(self, size: int) -> memoryview:
        """The next `size` bytes, fewer at the end; they stay where they are."""
        while len(self._data) < size:
            self._fetch()
            if not self._coming:
                break
            more = _unsigned(self._coming.popleft().result())
            self._data = memoryview(b"".join([self._data, more])) if self._data else more
        return self._data[:size]

    def take(self, size: int) -> memoryview:
        """The next `size` bytes.

        Raises:
            ValueError: there are fewer.
        """
        found = self.peek(size)
        self.skip(_whole(found, size))
        return found

    def skip(self, size: int) -> None:
        self._data = self._data[size:]

    def close(self) -> None:
        """Give up what is on its way."""
        for future in self._coming:
            future.cancel()

    def _fetch(self) -> None:
        while len(self._coming) <= self._ahead:
            at = next(self._ranges, None)
            if at is None:
                return
            self._coming.append(self._executor.submit(self._read, *at))


def _whole(found: memoryview, size: int) -> int:
    if len(found) < size:
        raise ValueError(f"expected {size} bytes, found {len(found)}")
    return size


def _unsigned(data: Any) -> memoryview:
    """pyarrow's buffers show their bytes as signed."""
    return memoryview(data).cast("B")
