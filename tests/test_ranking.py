"""The best classes of a row: ties, NaN, infinities, every dtype, and both ways of finding them."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer import ranking
from batchinfer.ranking import argmax, top_k

NAN, INF = float("nan"), float("inf")
ROWS = [
    ("plain", "float32", [0.1, 0.7, 0.2], [1, 2, 0]),
    ("ties: lowest index first", "float32", [5, 7, 7, 5], [1, 2, 0, 3]),
    ("all alike", "float32", [3, 3, 3], [0, 1, 2]),
    ("NaN first", "float32", [1, NAN, 9], [1, 2, 0]),
    ("several NaN by index", "float64", [NAN, INF, NAN, -INF], [0, 2, 1, 3]),
    ("all NaN", "float32", [NAN, NAN], [0, 1]),
    ("the least value is no hole", "float32", [-INF, 1, -INF, -INF], [1, 0, 2, 3]),
    ("zeros of both signs are alike", "float32", [-0.0, 0.0, 1], [2, 0, 1]),
    ("float16", "float16", [1, 65504, INF], [2, 1, 0]),
    ("bools", "bool", [False, True, False, True], [1, 3, 0, 2]),
    ("int8 with its least value", "int8", [-128, 127, -128, 0], [1, 3, 0, 2]),
    ("uint8", "uint8", [0, 255, 0], [1, 0, 2]),
    ("uint64 beyond float64", "uint64", [2**63, 2**63 + 1, 2**64 - 1], [2, 1, 0]),
    ("int64", "int64", [2**62 + 1, 2**62, -(2**63)], [0, 1, 2]),
    ("one class", "float32", [4], [0]),
]


@pytest.mark.parametrize("most_passes", [32, 0], ids=["by passes", "by sorting"])
@pytest.mark.parametrize("dtype, row, expected", [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_the_best_come_first(dtype, row, expected, most_passes, monkeypatch):
    monkeypatch.setattr(ranking, "MOST_PASSES", most_passes)
    scores = np.array([row, row[::-1]], dtype)[:1]
    for k in range(1, len(row) + 1):
        assert top_k(scores, k).tolist() == [expected[:k]]
    assert argmax(scores).tolist() == [expected[0]] == [int(np.argmax(row))]


def test_rows_do_not_disturb_each_other():
    scores = np.array([[1, 2, 3], [-INF, -INF, -INF], [NAN, 0, NAN], [3, 2, 1]], np.float32)
    assert top_k(scores, 2).tolist() == [[2, 1], [0, 1], [0, 2], [0, 1]]
    assert argmax(scores).tolist() == [2, 0, 0, 0]
    assert scores.tolist()[0] == [1, 2, 3]  # the model's own array is left as it was


def test_indices_are_int32_and_no_rows_are_none():
    none = np.zeros((0, 5), np.float32)
    assert (top_k(none, 3).dtype, top_k(none, 3).shape) == (np.int32, (0, 3))
    assert (argmax(none).dtype, argmax(none).shape) == (np.int32, (0,))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("k", [1, 5, 32, 33, 100])
def test_many_values_with_many_ties_rank_as_a_stable_sort_does(dtype, k):
    scores = np.random.RandomState(7).randint(-20, 20, (50, 100)).astype(dtype)
    expected = [sorted(range(100), key=lambda i: (-row[i], i))[:k] for row in scores.tolist()]
    assert top_k(scores, k).tolist() == expected
