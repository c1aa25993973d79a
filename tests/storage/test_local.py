from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Iterator

import pytest

from batchinfer.errors import StorageError, TransientStorageError
from batchinfer.storage import open_store
from batchinfer.storage.local import storage_error
from tests.storage.contract import Folder, Folders, StoreContract
from tests.support.servers import ROOT


class TestLocalStore(StoreContract):
    @pytest.fixture
    def folders(self, tmp_path: pathlib.Path) -> Folders:
        return Folders(lambda: open_store(str(tmp_path)))

    def wait_for_another_version(self) -> None:
        time.sleep(0.02)  # the kernel takes file times from a clock that ticks every 1 to 10 ms


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Folder:
    return Folders(lambda: open_store(str(tmp_path / "out"))).fresh()


WRITER = """
import resource, signal, sys
from batchinfer.storage import open_store
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store, path = open_store(sys.argv[1])
store.create(path, b"x" * 1_000_000)
"""


def write_past_the_limit(path: str, on_limit: str) -> subprocess.CompletedProcess[bytes]:
    """Create a file of 1 MB in a process that may write 100 kB to a file."""
    command = [sys.executable, "-c", WRITER, path, on_limit]
    return subprocess.run(command, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)


def test_a_process_killed_amid_a_write_leaves_no_visible_file(folder: Folder) -> None:
    done = write_past_the_limit(folder.at("part"), "SIG_DFL")  # the kernel kills it
    assert done.returncode == -signal.SIGXFSZ
    (left,) = folder.store.list(folder.path)
    assert left.path.startswith(folder.at("_batchinfer/tmp/"))
    assert 0 < left.size <= 100_000
    assert folder.store.create(folder.at("part"), b"whole")


def test_an_exception_amid_a_write_leaves_nothing(folder: Folder) -> None:
    done = write_past_the_limit(folder.at("part"), "SIG_IGN")  # the write raises EFBIG
    assert done.returncode == 1
    assert b"StorageError: " + os.fsencode(folder.at("part")) + b": File too large" in done.stderr
    assert folder.names() == []


@pytest.mark.parametrize("name", ["part", "_batchinfer/ledger/000001.jsonl"])
def test_the_half_written_file_lies_below_the_state_folder(folder: Folder, name: str) -> None:
    write_past_the_limit(folder.at(name), "SIG_DFL")
    assert [os.path.dirname(found) for found in folder.names()] == ["_batchinfer/tmp"]


@pytest.mark.parametrize("write", ["create", "put"])
@pytest.mark.parametrize("below", ["file/part", "file/deeper/part"])
def test_a_file_where_a_folder_is_needed_is_named(folder: Folder, write: str, below: str) -> None:
    folder.created("file")
    with pytest.raises(StorageError, match=f"{below}: .*a file stands where a folder is needed"):
        getattr(folder.store, write)(folder.at(below), b"data")
    assert None is folder.store.info(folder.at(below))
    folder.store.delete(folder.at(below))


@pytest.mark.parametrize("write", ["create", "put"])
def test_a_folder_that_takes_no_files_is_named(write: str) -> None:
    if not os.path.isdir("/proc/sys"):
        pytest.skip("no /proc here; it takes no files from anyone, root included")
    store, path = open_store("/proc/sys/batchinfer/part")
    with pytest.raises(StorageError, match="/proc/sys/batchinfer/part: ") as caught:
        getattr(store, write)(path, b"data")
    assert not isinstance(caught.value, TransientStorageError)


def test_a_full_disk_is_worth_another_run(tmp_path: pathlib.Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        store, path = open_store(str(disk / "part"))
        for write in (store.create, store.put):
            with pytest.raises(TransientStorageError, match="No space left on device; mend that"):
                write(path, b"x" * 1_000_000)
        assert list(store.list(str(disk))) == []
        assert store.create(path, b"x" * 1000)


@contextlib.contextmanager
def tiny_disk(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 256 kB, where mounting is allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "batchinfer-test", str(folder)]
    done = subprocess.run(mount, stderr=subprocess.PIPE)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_hard_links_is_said_to_be_one(number: int) -> None:
    error = OSError(number, os.strerror(number), "/out/tmp/1", None, "/out/part")
    found = storage_error("/out/part", error)
    assert StorageError is type(found)
    assert "/out/part: this file system has no hard links" in str(found)
    assert "choose an output on another disk" in str(found)


@pytest.mark.parametrize(
    "number, kind",
    [
        (errno.ENOSPC, TransientStorageError),
        (errno.EDQUOT, TransientStorageError),
        (errno.EIO, TransientStorageError),
        (errno.ESTALE, TransientStorageError),
        (errno.EACCES, StorageError),
        (errno.EPERM, StorageError),  # without a second name: not about links
        (errno.EROFS, StorageError),
        (errno.ENAMETOOLONG, StorageError),
    ],
)
def test_an_errno_says_whether_another_run_may_help(number: int, kind: type) -> None:
    found = storage_error("/out/part", OSError(number, os.strerror(number), "/out/part"))
    assert kind is type(found)
    assert str(found).startswith(f"/out/part: {os.strerror(number)}")


def test_a_linked_folder_is_followed_once_and_a_loop_ends(folder: Folder) -> None:
    folder.created("real/file")
    os.symlink(folder.path, folder.at("real/loop"))
    os.symlink(folder.at("real"), folder.at("a-link-that-sorts-first"))
    assert folder.names() == ["real/file"]
    assert [
        info.path[len(folder.path) + 1 :]
        for info in folder.store.list(folder.at("a-link-that-sorts-first"))
        if "loop" not in info.path
    ] == ["a-link-that-sorts-first/file"]


def test_a_folder_outside_is_reached_through_a_link(folder: Folder, tmp_path: pathlib.Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"data")
    folder.created("file")
    os.symlink(str(tmp_path / "elsewhere"), folder.at("link"))
    assert folder.names() == ["file", "link/file"]


def test_links_to_nothing_and_things_that_are_no_files_are_not_listed(folder: Folder) -> None:
    for name in ("a", "c", "e", "g"):
        folder.created(name)
    os.symlink(folder.at("nothing"), folder.at("b"))
    os.symlink(folder.at("d"), folder.at("d"))
    os.mkfifo(folder.at("f"))
    assert folder.names() == ["a", "c", "e", "g"]
    assert [folder.store.info(folder.at(name)) for name in "bdf"] == [None] * 3
