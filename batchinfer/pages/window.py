"""The bytes of a column chunk in order, each read when it is needed."""

from __future__ import annotations

from typing import Any, Callable

Read = Callable[[int, int], Any]  # (start, end) -> those bytes


class Window:
    """Reads exactly what is asked for; who fetches ahead does it behind `read`.

    Args:
        read: gives the bytes [start, end).
        start, stop: of the column chunk.
    """

    def __init__(self, read: Read, start: int, stop: int) -> None:
        self._read, self._position, self._stop = read, start, stop

    def peek(self, size: int) -> memoryview:
        """The next `size` bytes, fewer at the end; they stay where they are."""
        end = min(self._position + size, self._stop)
        # pyarrow's buffers show their bytes as signed.
        return memoryview(self._read(self._position, end)).cast("B")

    def take(self, size: int) -> memoryview:
        """The next `size` bytes.

        Raises:
            ValueError: there are fewer.
        """
        found = self.peek(size)
        if len(found) < size:
            raise ValueError(f"expected {size} bytes, found {len(found)}")
        self._position += size
        return found

    def skip(self, size: int) -> None:
        self._position += size
