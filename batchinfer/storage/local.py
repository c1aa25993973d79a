"""Local disks and mounted shares: a temporary file, fsync, then `os.link` makes the name appear."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import uuid
from typing import AbstractSet, Any, Iterator, List, Optional, Set

from batchinfer.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from batchinfer.storage.store import ObjectInfo, Store

SCRATCH = "_batchinfer/tmp"
ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # ELOOP: a link that only leads to itself
PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE}
NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # FAT, SMB, FUSE


class LocalStore(Store):
    """The file system. `os.link` refuses a taken name; a linked file is whole from the start.

    Nothing is tried again here: a full disk or a lost mount does not mend within a budget.
    """

    def info(self, path: str) -> Optional[ObjectInfo]:
        return _file_info(path)

    def list(self, path: str) -> Iterator[ObjectInfo]:
        found: List[ObjectInfo] = []
        _walk(path, set(), found)
        return iter(sorted(found))  # no path comes twice: it alone decides

    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        try:
            with io.FileIO(path) as file:  # no buffer: a read is one system call
                found = _info(path, os.fstat(file.fileno()))
                if version not in (None, found.version):
                    raise ObjectChangedError(
                        f"{path} changed after it was planned: expected version {version}, "
                        f"found {found.version}"
                    )
                file.seek(start)
                return file.readall() if end is None else _read_up_to(file, end - start)
        except OSError as error:
            if error.errno in ABSENT | {errno.EISDIR}:
                raise ObjectNotFoundError(f"{path}: {error.strerror}") from error
            raise storage_error(path, error) from error

    def create(self, path: str, data: Any) -> bool:
        with _reported(path), _whole_file(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        return True

    def put(self, path: str, data: bytes) -> None:
        with _reported(path), _whole_file(path, data) as temporary:
            os.replace(temporary, path)

    def delete(self, path: str) -> None:
        with contextlib.suppress(OSError), _reported(path, but=ABSENT):
            os.unlink(path)

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


def _read_up_to(file: io.FileIO, size: int) -> bytes:
    """The next `size` bytes as far as the file goes: Linux gives at most 2 GiB at once."""
    data = file.read(max(0, size))
    while 0 < len(data) < size:
        more = file.read(size - len(data))
        if not more:
            break
        data += more
    return data


@contextlib.contextmanager
def _whole_file(path: str, data: Any) -> Iterator[str]:
    """A temporary file with the whole content on disk, to be given its name `path`.

    Its folder is synced afterwards, so that the name outlives a power cut as well.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(_scratch(folder), uuid.uuid4().hex)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
        _sync_folder(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):  # `os.replace` took it
            os.unlink(temporary)


def _scratch(folder: str) -> str:
    """Where the half-written file lies: never in a folder that readers of predictions list.

    That is `_batchinfer/tmp` of the output folder, on the same file system as the target,
    whether the target lies in the output folder itself or below its `_batchinfer`.
    """
    head, inside, _ = (folder + "/").rpartition("/_batchinfer/")
    scratch = os.path.join(head if inside else folder, SCRATCH)
    os.makedirs(scratch, exist_ok=True)
    return scratch


def _walk(folder: str, seen: Set[str], files: List[ObjectInfo]) -> None:
    """Add the files below a folder; linked folders are followed once, so that a loop ends."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    for entry in _entries(folder):
        try:
            found = entry.stat()
        except OSError as error:
            if error.errno in ABSENT:  # deleted meanwhile, or a link to nothing
                continue
            raise storage_error(entry.path, error) from error
        if stat.S_ISREG(found.st_mode):
            files.append(_info(entry.path, found))
        elif stat.S_ISDIR(found.st_mode):
            _walk(entry.path, seen, files)


def _entries(folder: str) -> List[os.DirEntry[str]]:
    """What lies in a folder, nothing if it is none; links last.

    The order is fixed, so that of two ways to one folder each listing takes the same.
    """
    with contextlib.suppress(OSError), _reported(folder, but=ABSENT), os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name))
    return []


def _file_info(path: str) -> Optional[ObjectInfo]:
    """None for a folder, a device, a link to nothing, or nothing at all."""
    with contextlib.suppress(OSError), _reported(path, but=ABSENT):
        found = os.stat(path)
        return _info(path, found) if stat.S_ISREG(found.st_mode) else None
    return None


def _info(path: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, found.st_size, str(found.st_mtime_ns))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # no fsync of folders: FUSE, SMB
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _reported(path: str, but: AbstractSet[int] = frozenset()) -> Iterator[None]:
    """An OSError as one of ours, except those whose errno is in `but`."""
    try:
        yield
    except OSError as error:
        if error.errno in but:
            raise
        raise storage_error(path, error) from error


def storage_error(path: str, error: OSError) -> StorageError:
    """What an errno means for the caller."""
    text = f"{path}: {error.strerror or error}"
    if error.errno in NO_HARD_LINKS and error.filename2:
        return StorageError(
            f"{path}: this file system has no hard links ({error.strerror}), and without them a "
            "prediction file cannot appear whole in one step; choose an output on another disk"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return StorageError(f"{text}; a file stands where a folder is needed")
    if error.errno in PASSING:
        return TransientStorageError(f"{text}; mend that and run the same command again")
    return StorageError(text)
