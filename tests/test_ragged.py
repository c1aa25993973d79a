"""Rows of different lengths: kept end to end, cut, joined, and padded when they are scored."""

from __future__ import annotations

import numpy as np

from batchinfer.batch import Batch, pad, rebatch
from batchinfer.ragged import Ragged


def ragged(*rows, dtype=np.int64):
    values = [value for row in rows for value in row]
    return Ragged.of(np.array(values, dtype), np.array([len(row) for row in rows], np.int64))


ROWS = ragged([1, 2], [], [3], [4, 5, 6])


def test_padding_stands_behind_each_row():
    assert ROWS.padded().tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0], [4, 5, 6]]
    assert ROWS.lengths.tolist() == [2, 0, 1, 3]
    assert ragged(["a"], [], ["b", "c"], dtype=object).padded().tolist() == [
        ["a", b""], [b"", b""], ["b", "c"],
    ]  # fmt: skip


def test_rows_that_are_all_empty_have_no_columns():
    assert ragged([], [], dtype=np.float32).padded().shape == (2, 0)


def test_a_slice_shares_memory_and_is_as_wide_as_its_own_longest_row():
    piece = ROWS[1:3]
    assert np.shares_memory(piece.values, ROWS.values)
    assert (len(piece), piece.padded().tolist()) == (2, [[0], [3]])
    assert len(ROWS[2:2]) == len(ROWS[4:]) == 0


def test_unpadded_is_the_inverse_of_padded_whatever_the_padding_holds():
    padded = ROWS.padded()
    padded[padded == 0] = 77
    again = Ragged.unpadded(padded, ROWS.lengths)
    assert (again.own_values.tolist(), again.lengths.tolist()) == ([1, 2, 3, 4, 5, 6], [2, 0, 1, 3])


def test_the_last_row_is_repeated_to_fill_a_batch():
    assert pad(ROWS[:3], 5).padded().tolist() == [[1, 2], [0, 0], [3, 0], [3, 0], [3, 0]]
    assert pad(ROWS[:2], 4).padded().tolist() == [[1, 2], [0, 0], [0, 0], [0, 0]]
    assert pad(ROWS, 4) is ROWS


def test_batches_are_cut_and_joined_row_by_row():
    given = [Batch({"x": ROWS}, (), 4), Batch({"x": ragged([7, 8, 9, 10])}, (), 1)]
    found = [batch.feeds["x"].padded().tolist() for batch in rebatch(given, 3)]
    assert found == [[[1, 2], [0, 0], [3, 0]], [[4, 5, 6, 0], [7, 8, 9, 10]]]
