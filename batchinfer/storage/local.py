"""Local disks and mounted shares: a temporary file, fsync, then `os.link` makes the name appear."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from typing import Any, Iterator, Optional, Set

from batchinfer.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from batchinfer.storage.store import ObjectInfo, Store

SCRATCH = "_batchinfer/tmp"
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE}


class LocalStore(Store):
    """The file system. `os.link` refuses a taken name; a linked file is whole from the start."""

    def info(self, path: str) -> Optional[ObjectInfo]:
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _storage_error(path, error) from error
        return None if stat.S_ISDIR(found.st_mode) else _info(path, found)

    def list(self, path: str) -> Iterator[ObjectInfo]:
        return iter(sorted(_walk(path, set()), key=lambda info: info.path))

    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        try:
            with open(path, "rb") as file:
                info = _info(path, os.fstat(file.fileno()))
                if version is not None and info.version != version:
                    raise ObjectChangedError(f"{path} changed after it was planned")
                file.seek(start)
                return file.read(-1 if end is None else max(0, end - start))
        except OSError as error:
            raise _storage_error(path, error) from error

    def create(self, path: str, data: Any) -> bool:
        return self._write(path, data, exclusive=True)

    def put(self, path: str, data: bytes) -> None:
        self._write(path, data, exclusive=False)

    def _write(self, path: str, data: Any, exclusive: bool) -> bool:
        folder = os.path.dirname(path)
        temporary = ""
        try:
            os.makedirs(folder, exist_ok=True)
            temporary = os.path.join(_scratch(folder), uuid.uuid4().hex)
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if exclusive:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
            _sync_folder(folder)
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise _storage_error(path, error) from error
        finally:
            if temporary and os.path.exists(temporary):
                os.unlink(temporary)

    def delete(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _storage_error(path, error) from error

    def open_input(self, info: ObjectInfo) -> str:
        found = self.info(info.path)
        if found is None:
            raise ObjectNotFoundError(f"{info.path} was deleted after it was planned")
        if found != info:
            raise ObjectChangedError(
                f"{info.path} changed after it was planned: expected {info.size} bytes, "
                f"version {info.version}; found {found.size} bytes, version {found.version}"
            )
        return info.path


def _scratch(folder: str) -> str:
    """Where the half-written file lies: never in a folder that readers of predictions list.

    That is `_batchinfer/tmp` of the output folder, on the same file system as the target,
    whether the target lies in the output folder itself or below its `_batchinfer`.
    """
    head, inside, _ = (folder + "/").rpartition("/_batchinfer/")
    scratch = os.path.join(head if inside else folder, SCRATCH)
    os.makedirs(scratch, exist_ok=True)
    return scratch


def _walk(folder: str, seen: Set[str]) -> Iterator[ObjectInfo]:
    """Files below a folder; linked folders are followed once, so that a loop ends."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _walk(entry.path, seen)
                else:
                    yield _info(entry.path, entry.stat())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise _storage_error(folder, error) from error


def _info(path: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, found.st_size, str(found.st_mtime_ns))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _storage_error(path: str, error: OSError) -> StorageError:
    """What an errno means for the caller."""
    text = f"{path}: {error.strerror or error}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ObjectNotFoundError(text)
    if error.errno in (errno.EPERM, errno.ENOTSUP) and error.filename2:
        return StorageError(
            f"{path}: this file system has no hard links ({error.strerror}), and without them a "
            "prediction file cannot appear whole in one step; choose an output on another disk"
        )
    if error.errno in PASSING:
        return TransientStorageError(f"{text}; mend that and run the same command again")
    return StorageError(text)
