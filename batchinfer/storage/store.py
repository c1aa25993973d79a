"""What every store can do: list, read a range, create once, replace, delete."""

from __future__ import annotations

import abc
import contextlib
import io
import os
import re
from typing import Any, Iterator, NamedTuple, Optional, Union

from batchinfer.errors import StorageError
from batchinfer.storage.retry import Retry

# What readers of a folder skip: "_temporary", ".hidden", all below. "year=2024" is a hive folder.
HIDDEN = re.compile(r"(?:^|/)[._]")


class ObjectInfo(NamedTuple):
    """One object as a fresh listing shows it.

    Attributes:
        path: whole path inside the store.
        size: bytes.
        version: changes when the content does: the ETag on S3, the generation on GCS,
            the time of last change in nanoseconds on a local disk.
    """

    path: str
    size: int
    version: str


class Store(abc.ABC):
    """One object store. Objects appear whole or not at all, and listings are never cached.

    `create` is the only way an output becomes visible: it makes a whole object under a name
    that was free, in one step. Transient failures are retried inside each call.
    """

    prefix = ""  # what stands before a path in a URL
    exclusive = True  # whether `create` refuses a taken name in the store itself

    def __init__(self, retry: Retry) -> None:
        self.retry = retry

    def url(self, path: str) -> str:
        """The path as a user writes it."""
        return self.prefix + path

    @abc.abstractmethod
    def info(self, path: str) -> Optional[ObjectInfo]:
        """The object under exactly this name, or None."""

    @abc.abstractmethod
    def list(self, path: str) -> Iterator[ObjectInfo]:
        """Every object below a folder, however deep, sorted by path; nothing if there is none."""

    @abc.abstractmethod
    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        """The bytes [start, end) of an object, as far as it goes; all of it by default.

        Raises:
            ObjectNotFoundError: there is none.
            ObjectChangedError: it is not of the given `version`.
        """

    @abc.abstractmethod
    def create(self, path: str, data: Any) -> bool:
        """Make a whole object in one step if the name is free.

        Returns:
            True when this call (or, after a lost answer, perhaps this call) made it; False
            when an object lies there. Then look at what it is: it may be our own.
        """

    @abc.abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Replace a whole object in one step; for caches and heartbeats, never for predictions."""

    @abc.abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; nothing happens if there is none."""

    def creates_exclusively(self, folder: str, nonce: str) -> bool:
        """Whether `create` really refuses a taken name here: tried with a probe object.

        Stores behind the S3 API may ignore the condition and overwrite; `create` then looks
        before it puts, and only the deterministic names keep two writers apart.
        """
        probe = join(folder, nonce)
        self.exclusive = True  # or else `create` would look first, and refuse by itself
        self.create(probe, b"1")
        self.exclusive = not self.create(probe, b"2")
        with contextlib.suppress(StorageError):  # a role that may not delete can run all the same
            self.delete(probe)
        return self.exclusive

    def open_input(self, info: ObjectInfo) -> Union[str, io.RawIOBase]:
        """Something that pyarrow reads an input from, pinned to the planned version."""
        return RangeReader(self, info)


class RangeReader(io.RawIOBase):
    """A seekable file over `Store.read`: each read is one ranged request with its own retries.

    fsspec's own file objects do not retry a body that breaks off (s3fs 2023.1).
    """

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        super().__init__()
        self.store = store
        self.info = info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def size(self) -> int:
        return self.info.size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.info.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self.info.size if size is None or size < 0 else self._position + size
        data = self.read_range(self._position, min(end, self.info.size))
        self._position += len(data)
        return data

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes [start, end), wherever the position is; for several threads at once.

        Raises:
            StorageError: the object does not have them all.
        """
        if end <= start:
            return b""
        data = self.store.read(self.info.path, start, end, self.info.version)
        if len(data) != end - start:
            raise StorageError(
                f"{self.store.url(self.info.path)}: expected {end - start} bytes at {start}, "
                f"got {len(data)}"
            )
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def join(folder: str, name: str) -> str:
    """A path below a folder, with one slash between them."""
    return f"{folder.rstrip('/')}/{name}" if folder else name
