"""Padding and rebatching, with rows that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.arrow import pa
from batchinfer.batch import Batch, Place, pad, rebatch
from batchinfer.errors import InputError


def batch(*ids):
    table = pa.table({"id": list(ids)})
    return Batch({"x": np.array(ids, np.float32)}, (table,), len(ids))


def ids_of(found):
    return [i for table in found.kept for i in table.column("id").to_pylist()]


def test_padding_repeats_the_last_row():
    assert pad(np.array([[1, 2], [3, 4]]), 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]


def test_a_full_batch_is_not_copied():
    array = np.zeros((3, 2))
    assert pad(array, 3) is array


@pytest.mark.parametrize("rows", [0, 5])
def test_padding_refuses_no_rows_and_too_many(rows):
    with pytest.raises(InputError, match=f"1 to 4 rows; found {rows}"):
        pad(np.zeros((rows, 2)), 4)


SIZES = [
    ([3, 3, 3], 4, [4, 4, 1]),
    ([10], 4, [4, 4, 2]),
    ([1, 1, 1, 1, 1], 2, [2, 2, 1]),
    ([4, 4], 4, [4, 4]),
    ([0, 2, 0], 4, [2]),
    ([], 4, []),
    ([1, 9, 2], 5, [5, 5, 2]),
]


@pytest.mark.parametrize("given, rows, expected", SIZES)
def test_batches_are_cut_and_joined_to_one_size_in_order(given, rows, expected):
    numbers = iter(range(sum(given)))
    found = list(rebatch([batch(*(next(numbers) for _ in range(n))) for n in given], rows))
    assert [b.num_rows for b in found] == expected
    assert [i for b in found for i in ids_of(b)] == list(range(sum(given)))
    assert [i for b in found for i in b.feeds["x"].tolist()] == list(range(sum(given)))


def test_batches_within_a_source_are_views_of_it():
    source = batch(*range(8))
    for found in rebatch([source], 4):
        assert np.shares_memory(found.feeds["x"], source.feeds["x"])


def test_rows_know_their_files_when_they_are_cut_and_joined():
    def rows_of(url, first_row, count):
        zeros = np.zeros(count, np.float32)
        return Batch({"x": zeros}, (), count, (Place(url, first_row, count),))

    first, second = rebatch([rows_of("a", 10, 3), rows_of("b", 0, 3)], 4)
    assert first.places == (("a", 10, 3), ("b", 0, 1))
    assert second.places == (("b", 1, 2),)
    assert first.slice(1, 4).slice(1, 3).places == (("a", 12, 1), ("b", 0, 1))
