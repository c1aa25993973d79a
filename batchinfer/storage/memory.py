"""fsspec's memory:// file system, for tests: one process sees it, other Ray workers do not."""

from __future__ import annotations

import hashlib
import threading
from typing import Any, Iterator, Optional

import fsspec

from batchinfer.errors import ObjectChangedError, ObjectNotFoundError
from batchinfer.storage.retry import Retry
from batchinfer.storage.store import ObjectInfo, Store

LOCK = threading.Lock()  # fsspec's memory store is one global dict


class MemoryStore(Store):
    """Objects in this process's memory; a version is a digest of the content."""

    prefix = "memory://"

    def __init__(self, retry: Retry) -> None:
        super().__init__(retry)
        self._fs = fsspec.filesystem("memory")

    def info(self, path: str) -> Optional[ObjectInfo]:
        with LOCK:
            return self._info(path)

    def _info(self, path: str) -> Optional[ObjectInfo]:
        if not self._fs.isfile("/" + path):
            return None
        data = self._fs.cat_file("/" + path)
        return ObjectInfo(path, len(data), hashlib.sha256(data).hexdigest()[:16])

    def list(self, path: str) -> Iterator[ObjectInfo]:
        with LOCK:
            names = sorted(name.lstrip("/") for name in self._fs.find("/" + path))
            infos = [self._info(name) for name in names if name != path]
        return iter([info for info in infos if info])

    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        with LOCK:
            info = self._info(path)
            if info is None:
                raise ObjectNotFoundError(f"{self.url(path)}: nothing lies there")
            if version not in (None, info.version):
                raise ObjectChangedError(f"{self.url(path)} changed after it was planned")
            return bytes(self._fs.cat_file("/" + path)[start:end])

    def create(self, path: str, data: Any) -> bool:
        with LOCK:
            if self._fs.isfile("/" + path):
                return False
            self._fs.pipe_file("/" + path, bytes(data))
            return True

    def put(self, path: str, data: bytes) -> None:
        with LOCK:
            self._fs.pipe_file("/" + path, bytes(data))

    def delete(self, path: str) -> None:
        with LOCK:
            if self._fs.isfile("/" + path):
                self._fs.rm_file("/" + path)
