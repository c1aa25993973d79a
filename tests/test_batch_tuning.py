"""Which batch size is chosen, by a clock and a device of the test's own; and that it is shared."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest

from batchinfer import batch_tuning
from batchinfer.batch import Batch
from batchinfer.batch_tuning import best, measure, settle
from batchinfer.pipeline import Lane
from batchinfer.run_folder import RunFolder
from batchinfer.storage import open_store

SAMPLE = Batch({"x": np.arange(3, dtype=np.float32)}, (), 3)


class Device:
    """Takes `fixed_s` a run and `row_s` a row, on a clock that only it moves."""

    def __init__(self, fixed_s, row_s, memory_rows=1 << 30):
        self.batch_rows, self.halved, self.now = 256, 0, 0.0
        self.sizes = []
        self._fixed_s, self._row_s, self._memory_rows = fixed_s, row_s, memory_rows
        self._lock = threading.Lock()

    def clock(self):
        return self.now

    def score(self, feeds):
        rows = len(feeds["x"])
        with self._lock:
            self.sizes += [rows] if rows not in self.sizes else []
            self.now += self._fixed_s + rows * self._row_s
            self.halved += rows > self._memory_rows
        return {"y": feeds["x"]}


def measured(device, most_rows=1 << 20, sample=SAMPLE):
    return measure(device, sample, Lane(1), most_rows, 1 << 40, device.clock)


def test_sizes_are_doubled_until_that_brings_nothing():
    device = Device(fixed_s=1e-3, row_s=1e-4)
    rates = measured(device)
    assert device.sizes == [8, 16, 32, 64, 128, 256, 512, 1024, 2048]
    assert best(rates) == 2048  # 9,903 rows/s of at most 10,000; 512 has 9,624
    assert round(rates[512]) == 9624  # 2 ms a batch, of which 1 is the host's, and 0.1 a row


def test_what_else_the_machine_does_meanwhile_does_not_change_the_choice():
    device, calls = Device(fixed_s=1e-3, row_s=1e-4), itertools.count()
    score = device.score

    def disturbed(feeds):
        device.now += 0.2 * (next(calls) % 2)  # every other run waits, for longer than a size has
        return score(feeds)

    device.score = disturbed
    assert measured(device) == pytest.approx(measured(Device(fixed_s=1e-3, row_s=1e-4)))


def test_a_short_run_is_not_spent_on_measuring():
    device = Device(fixed_s=1e-4, row_s=1e-6)
    measure(device, SAMPLE, Lane(1), 1000, 20_000, device.clock)
    assert device.sizes == [8, 32, 128, 512]
    assert device.now < 0.021  # the run itself takes 0.024 s


def test_where_a_run_takes_no_time_sizes_grow_by_four():
    device = Device(fixed_s=1e-4, row_s=1e-6)
    measured(device)
    assert device.sizes == [8, 32, 128, 512, *(1 << n for n in range(11, 17))]  # 612 us, 2,148


def test_a_device_that_is_slower_with_more_keeps_the_best():
    device = Device(1e-4, 1e-4)
    device.score = lambda feeds: setattr(
        device, "now", device.now + 0.01 * max(1.0, len(feeds["x"]) / 16) ** 2
    )
    assert best(measured(device)) == 16


def test_a_size_that_the_device_has_no_memory_for_ends_it():
    device = Device(0.1, 0.0, memory_rows=40)
    assert list(measured(device)) == [8, 16, 32]
    assert (device.batch_rows, device.halved) == (256, 0)


@pytest.mark.parametrize("most, expected", [(100, [8, 16, 32, 64]), (8, [8]), (5, [5]), (0, [1])])
def test_no_size_is_tried_that_no_batch_can_have(most, expected):
    assert list(measured(Device(1e-3, 0.0), most)) == expected


def test_batches_stay_within_their_bytes():
    wide = Batch({"x": np.zeros((2, 1 << 22), np.uint8)}, (), 2)  # 4 MiB a row
    assert list(measured(Device(1e-3, 0.0), sample=wide)) == [8, 16, 32]


def test_texts_count_by_their_length():
    texts = np.array([b"a" * (1 << 23)], object)
    assert list(measured(Device(1e-3, 0.0), sample=Batch({"x": texts}, (), 1))) == [8, 16]


def test_a_slow_model_is_not_measured_for_ever():
    assert list(measured(Device(0.9, 0.0))) == [8, 16]  # two sizes of three runs: 3 s are over


def test_the_largest_of_about_equal_sizes_is_best():
    assert best({8: 50.0, 16: 98.0, 32: 100.0, 64: 99.0, 128: 90.0}) == 64
    assert best({8: 50.0, 16: 98.0, 32: 100.0, 64: 94.0}) == 32


@pytest.fixture
def folder(tmp_path):
    store, path = open_store(str(tmp_path / "out"))
    return RunFolder(store, path)


def test_what_was_decided_holds_for_all_of_a_device_type(folder):
    assert settle(folder, "Tesla T4 1", lambda: {8: 1.0, 16: 9.0}) == 16
    assert settle(folder, "Tesla T4 1", lambda: {8: 9.0, 16: 1.0}) == 16
    assert settle(folder, "Tesla V100 1", lambda: {8: 9.0, 16: 1.0}) == 8
    record = json.loads(folder.store.read(folder.at("_batchinfer/batch/tesla-t4-1.json")))
    assert record == {"device": "Tesla T4 1", "batch_rows": 16, "rows_per_s": {"8": 1, "16": 9}}


def test_who_measured_second_takes_what_the_first_found(folder):
    def slower():
        assert settle(folder, "cpu 2", lambda: {32: 1.0}) == 32
        return {64: 1.0}

    assert settle(folder, "cpu 2", slower) == 32


def test_nothing_measured_decides_nothing(folder):
    assert settle(folder, "cpu 2", lambda: None) is None
    assert settle(folder, "cpu 2", lambda: {4: 1.0}) == 4


def test_the_budget_is_what_the_documentation_says():
    assert (batch_tuning.MOST_BYTES, batch_tuning.BUDGET_S) == (128 << 20, 3.0)
