"""What every store promises; each store's test class inherits it and gives `folders`."""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Tuple

import pytest

from batchinfer.errors import ObjectChangedError, ObjectNotFoundError
from batchinfer.storage import ObjectInfo, RangeReader, Store
from batchinfer.storage.store import join

NAMES = (
    "a space.bin",
    "per%cent%20.bin",
    "plus+.bin",
    "hash#.bin",
    "what?.bin",
    "and&more.bin",
    "year=2024/part.bin",
    "[0-9].bin",
    "star*.bin",
    "ünï.bin",
    "\N{ROCKET}.bin",
    'it\'s "quoted".bin',
    "semi;colon,comma.bin",
    "back\\slash.bin",
    "~tilde.bin",
    "{0}.bin",
    "dots...bin",
)


class Folders:
    """Empty folders of one store, and a way to open that store as another process does."""

    def __init__(self, open_one: Callable[[], Tuple[Store, str]]) -> None:
        self.another = lambda: open_one()[0]
        self.store, self.path = open_one()

    def fresh(self) -> Folder:
        return Folder(self.store, join(self.path, uuid.uuid4().hex), self.another)


@dataclass
class Folder:
    """An empty folder of a store."""

    store: Store
    path: str
    another: Callable[[], Store]

    def at(self, name: str) -> str:
        return join(self.path, name)

    def names(self, below: str = "") -> list[str]:
        """What a listing shows, relative to the folder."""
        infos = self.store.list(self.at(below) if below else self.path)
        return [info.path[len(self.path) + 1 :] for info in infos]

    def created(self, name: str, data: bytes = b"data") -> ObjectInfo:
        assert self.store.create(self.at(name), data) is True
        info = self.store.info(self.at(name))
        assert info is not None
        return info


class StoreContract:
    exclusive = True
    listed = 25  # objects of the test that needs more than one page

    @pytest.fixture
    def folder(self, folders: Folders) -> Folder:
        return folders.fresh()

    # --- list and info

    def test_an_empty_or_absent_folder_lists_nothing(self, folder: Folder) -> None:
        assert folder.names() == []

    def test_a_listing_is_sorted_and_goes_deep(self, folder: Folder) -> None:
        for name in ("b/2", "c", "a", "b/1/x", "b-1", "_batchinfer/run.json"):
            folder.created(name)
        expected = ["_batchinfer/run.json", "a", "b-1", "b/1/x", "b/2", "c"]
        assert expected == folder.names()
        assert folder.names("b") == ["b/1/x", "b/2"]

    def test_a_folder_is_not_a_prefix(self, folder: Folder) -> None:
        folder.created("part-1/x")
        folder.created("part-10/x")
        assert folder.names("part-1") == ["part-1/x"]
        assert folder.names("part") == []

    def test_a_file_lists_nothing_below_itself(self, folder: Folder) -> None:
        folder.created("file")
        assert folder.names("file") == []

    def test_a_listing_gives_what_info_gives(self, folder: Folder) -> None:
        info = folder.created("one", b"12345")
        assert [info] == list(folder.store.list(folder.path))
        assert (folder.at("one"), 5) == (info.path, info.size)

    def test_what_another_writer_does_shows_at_once(self, folder: Folder) -> None:
        other = folder.another()
        assert folder.names() == []
        assert None is folder.store.info(folder.at("x"))
        assert other.create(folder.at("x"), b"1")
        assert folder.names() == ["x"]
        assert folder.store.read(folder.at("x")) == b"1"
        other.put(folder.at("x"), b"22")
        assert [info.size for info in folder.store.list(folder.path)] == [2]
        other.delete(folder.at("x"))
        assert folder.names() == []
        assert None is folder.store.info(folder.at("x"))

    def test_a_listing_has_every_page(self, folder: Folder) -> None:
        names = [f"{number:05d}" for number in range(self.listed)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: folder.store.put(folder.at(name), b""), names))
        assert names == folder.names()

    def test_info_of_nothing_is_none(self, folder: Folder) -> None:
        assert None is folder.store.info(folder.at("nothing"))

    def test_info_of_a_folder_is_none(self, folder: Folder) -> None:
        folder.created("folder/file")
        assert None is folder.store.info(folder.at("folder"))

    # --- read

    @pytest.mark.parametrize(
        "start, end, expected",
        [
            (0, None, b"0123456789"),
            (0, 10, b"0123456789"),
            (0, 3, b"012"),
            (3, 7, b"3456"),
            (7, None, b"789"),
            (8, 99, b"89"),
            (4, 4, b""),
            (0, 0, b""),
            (10, None, b""),
            (10, 20, b""),
            (99, 100, b""),
        ],
    )
    def test_a_range_is_what_a_slice_is(
        self, folder: Folder, start: int, end: int, expected: bytes
    ) -> None:
        info = folder.created("digits", b"0123456789")
        assert expected == folder.store.read(info.path, start, end)
        assert expected == folder.store.read(info.path, start, end, info.version)

    @pytest.mark.parametrize("start, end", [(0, None), (1, 3), (2, 2)])
    def test_reading_nothing_says_so(self, folder: Folder, start: int, end: int) -> None:
        with pytest.raises(ObjectNotFoundError, match="nothing-here"):
            folder.store.read(folder.at("nothing-here"), start, end)

    def test_reading_a_folder_says_that_nothing_lies_there(self, folder: Folder) -> None:
        folder.created("folder/file")
        with pytest.raises(ObjectNotFoundError, match="folder"):
            folder.store.read(folder.at("folder"))

    @pytest.mark.parametrize("start, end", [(0, None), (1, 3), (2, 2)])
    def test_reading_a_stale_version_is_refused(self, folder: Folder, start: int, end: int) -> None:
        before = folder.created("input", b"before")
        self.wait_for_another_version()
        folder.store.put(before.path, b"after!")
        with pytest.raises(ObjectChangedError, match="input"):
            folder.store.read(before.path, start, end, before.version)
        after = folder.store.info(before.path)
        assert after is not None
        assert folder.store.read(after.path, version=after.version) == b"after!"

    def wait_for_another_version(self) -> None:
        """Only a store whose versions are times has something to wait for."""

    # --- create, put, delete

    def test_a_name_is_created_once_and_its_content_stays(self, folder: Folder) -> None:
        assert True is folder.store.create(folder.at("x"), b"first")
        assert False is self.create_again(folder, folder.at("x"), b"second")
        assert folder.store.read(folder.at("x")) == b"first"

    def create_again(self, folder: Folder, path: str, data: bytes) -> bool:
        return folder.store.create(path, data)

    def test_of_eight_creators_one_wins(self, folder: Folder) -> None:
        if not self.exclusive:
            pytest.skip("this store has no exclusive create")
        for attempt in range(5):
            path, start = folder.at(f"race-{attempt}"), threading.Barrier(8)

            def create(number: int, path: str = path, start: threading.Barrier = start) -> bool:
                start.wait()
                return folder.store.create(path, b"%d" % number)

            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(create, range(8)))
            assert sum(won) == 1
            assert b"%d" % won.index(True) == folder.store.read(path)

    def test_the_probe_knows_and_leaves_nothing_behind(self, folder: Folder) -> None:
        store = folder.another()
        for nonce in ("first", "second"):  # what the first one found must not sway the second
            assert self.exclusive is store.creates_exclusively(folder.at("probe"), nonce)
        assert folder.names() == []

    def test_a_buffer_is_created_like_bytes(self, folder: Folder) -> None:
        assert folder.store.create(folder.at("x"), memoryview(b"0123")[1:3])
        assert folder.store.read(folder.at("x")) == b"12"

    def test_put_replaces(self, folder: Folder) -> None:
        for data in (b"long content", b"short", b""):
            folder.store.put(folder.at("x"), data)
            assert data == folder.store.read(folder.at("x"))
        assert folder.names() == ["x"]

    def test_delete_removes_and_deleting_nothing_is_silent(self, folder: Folder) -> None:
        folder.created("x")
        folder.store.delete(folder.at("x"))
        folder.store.delete(folder.at("x"))
        folder.store.delete(folder.at("never/was"))
        assert folder.names() == []
        assert folder.store.create(folder.at("x"), b"again")

    # --- content and names

    def test_an_empty_object(self, folder: Folder) -> None:
        info = folder.created("empty", b"")
        assert (info.size, folder.store.read(info.path)) == (0, b"")
        assert folder.store.read(info.path, 0, 10, info.version) == b""
        assert RangeReader(folder.store, info).read() == b""

    def test_twenty_megabytes(self, folder: Folder) -> None:
        data = os.urandom(20_000_000)
        info = folder.created("large", data)
        assert info.size == 20_000_000
        assert data == folder.store.read(info.path)
        assert data[-5:] == folder.store.read(info.path, 19_999_995)

    def test_odd_names_survive(self, folder: Folder) -> None:
        for name in NAMES:
            assert folder.store.create(folder.at(name), name.encode())
            assert not self.create_again(folder, folder.at(name), b"other")
        assert sorted(NAMES) == folder.names()
        for name in NAMES:
            info = folder.store.info(folder.at(name))
            assert info is not None
            assert name.encode() == folder.store.read(info.path, version=info.version)
            folder.store.delete(info.path)
        assert folder.names() == []

    # --- many threads, and files for pyarrow

    def test_sixteen_threads_share_one_store(self, folder: Folder) -> None:
        def work(number: int) -> bytes:
            path = folder.at(f"{number % 16}/{number}")
            assert folder.store.create(path, b"%d" % number)
            assert folder.store.info(path) is not None
            return folder.store.read(path)

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(work, range(64)))
        assert [b"%d" % number for number in range(64)] == found
        assert len(folder.names()) == 64

    def test_an_input_is_read_where_a_reader_looks(self, folder: Folder) -> None:
        info = folder.created("digits", b"0123456789")
        file = RangeReader(folder.store, info)
        assert (file.read(3), file.tell()) == (b"012", 3)
        assert (file.seek(-2, os.SEEK_END), file.read(), file.read(5)) == (8, b"89", b"")
        assert (file.seek(2), file.seek(2, os.SEEK_CUR), file.read(2)) == (2, 4, b"45")
        buffer = bytearray(b"------")
        file.seek(7)
        assert (file.readinto(buffer), bytes(buffer)) == (3, b"789---")
        assert (file.readable(), file.seekable(), file.size()) == (True, True, 10)

    def test_an_input_that_changed_is_refused(self, folder: Folder) -> None:
        info = folder.created("input", b"before")
        self.wait_for_another_version()
        folder.store.put(info.path, b"after!")
        with pytest.raises(ObjectChangedError, match="input"):
            read_all(folder.store.open_input(info))

    def test_an_input_that_was_deleted_is_refused(self, folder: Folder) -> None:
        info = folder.created("input", b"before")
        folder.store.delete(info.path)
        with pytest.raises(ObjectNotFoundError, match="input"):
            read_all(folder.store.open_input(info))


def read_all(opened: object) -> bytes:
    """What pyarrow would read: of a path, or of a file object."""
    if isinstance(opened, str):
        with open(opened, "rb") as file:
            return file.read()
    return opened.read()  # type: ignore[attr-defined]
