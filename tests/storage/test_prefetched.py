"""What is fetched when: by a store that notes each request and answers when it is let."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from batchinfer.errors import StorageError
from batchinfer.storage import ObjectInfo, prefetched
from batchinfer.storage.prefetched import Prefetched, split, together
from batchinfer.storage.store import RangeReader

DATA = bytes(range(256)) * 4


class NotingStore:
    """Notes each range; answers at once, or once `let` is set."""

    def __init__(self):
        self.asked, self.let = [], threading.Event()
        self.let.set()

    def url(self, path):
        return path

    def read(self, path, start, end, version):
        self.asked.append((start, end))
        assert self.let.wait(10)
        return DATA[start:end]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(prefetched, "WINDOW_BYTES", 100)
    monkeypatch.setattr(prefetched, "SMALLEST_GAP_BYTES", 10)


@pytest.fixture
def opened():
    store = NotingStore()
    with ThreadPoolExecutor(8) as pool:
        yield store, Prefetched(RangeReader(store, ObjectInfo("x", len(DATA), "1")), pool)


def asked(store, number):
    """The requests, once there are so many; a moment later still no more."""
    until = time.monotonic() + 10
    while len(store.asked) < number and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.02)
    return sorted(store.asked)


def test_all_of_what_is_expected_at_once_is_on_its_way_before_it_is_read(opened):
    store, file = opened
    store.let.clear()
    file.expect([(0, 250), (400, 450)], at_once=True)
    assert asked(store, 4) == [(0, 100), (100, 200), (200, 250), (400, 450)]
    store.let.set()
    assert file.read_range(40, 230) == DATA[40:230]
    assert file.read_range(400, 450) == DATA[400:450]
    assert len(store.asked) == 4


def test_a_large_range_is_fetched_a_few_windows_ahead(opened):
    store, file = opened
    file.expect([(0, 1000)], at_once=False)
    assert asked(store, 0) == []
    assert file.read_range(0, 10) == DATA[:10]
    assert asked(store, 4) == [(0, 100), (100, 200), (200, 300), (300, 400)]
    assert file.read_range(210, 220) == DATA[210:220]
    assert asked(store, 6) == [(n, n + 100) for n in range(0, 600, 100)]


def test_columns_side_by_side_keep_their_own_windows(opened):
    store, file = opened
    file.expect([(0, 300), (500, 800)], at_once=False)
    for at in range(0, 300, 50):
        assert file.read_range(at, at + 50) == DATA[at : at + 50]
        assert file.read_range(500 + at, 550 + at) == DATA[500 + at : 550 + at]
    assert len(store.asked) == 6


def test_columns_that_touch_each_other_are_fetched_once_though_they_are_read_in_turn(opened):
    store, file = opened
    columns = [(start, start + 150) for start in range(0, 900, 150)]
    file.expect(columns, at_once=False)
    for at in range(0, 150, 30):
        for first in (start + at for start, _ in columns):
            assert file.read_range(first, first + 30) == DATA[first : first + 30]
    assert sorted(store.asked) == [window for column in columns for window in split(*column)]


def test_what_was_dropped_is_fetched_again(opened):
    _, file = opened
    file.expect([(0, 300)], at_once=False)
    assert b"".join(file.read_range(at, at + 100) for at in (0, 100, 200)) == DATA[:300]
    assert file.read_range(0, 300) == DATA[:300]


def test_what_nobody_expected_is_read_as_it_is_asked_for(opened):
    store, file = opened
    file.expect([(100, 200)], at_once=True)
    assert file.read_range(50, 250) == DATA[50:250]
    assert sorted(store.asked) == [(50, 100), (100, 200), (200, 250)]


def test_a_third_expectation_takes_the_place_of_the_first(opened):
    store, file = opened
    for start in (0, 100, 200):
        file.expect([(start, start + 50)], at_once=True)
    asked(store, 3)
    assert file.read_range(100, 150) + file.read_range(200, 250) == DATA[100:150] + DATA[200:250]
    assert len(store.asked) == 3
    assert file.read_range(0, 50) == DATA[:50]
    assert len(store.asked) == 4


def test_an_object_that_is_shorter_than_expected_is_an_error(opened):
    _, file = opened
    file.expect([(1000, 1050)], at_once=True)
    with pytest.raises(StorageError, match="expected 50 bytes at 1000, got 24"):
        file.read_range(1000, 1050)


def test_it_reads_like_a_file(opened):
    _, file = opened
    file.expect([(0, 1024)], at_once=True)
    file.seek(1000)
    assert (file.read(10), file.tell(), file.read(), file.read()) == (
        DATA[1000:1010], 1010, DATA[1010:], b"",
    )  # fmt: skip


@pytest.mark.parametrize(
    "ranges, expected",
    [
        ([], []),
        ([(0, 10), (20, 30)], [(0, 30)]),
        ([(0, 10), (21, 30)], [(0, 10), (21, 30)]),
        ([(20, 30), (0, 10)], [(0, 30)]),
        ([(0, 90), (95, 250)], [(0, 250)]),
    ],
)
def test_ranges_are_put_together_over_small_gaps(ranges, expected):
    assert together(ranges) == expected


def test_a_range_is_cut_into_windows():
    assert list(split(50, 260)) == [(50, 150), (150, 250), (250, 260)]
