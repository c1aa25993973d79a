"""Which pieces are looked at together; and that each rejected row keeps its file and number."""

from __future__ import annotations

import pytest

from batchinfer import pieces
from batchinfer.arrow import pa
from batchinfer.pieces import Piece, merged, together


def piece(url, values, first_row=0, kind=None):
    return Piece(url, first_row, pa.RecordBatch.from_arrays([pa.array(values, kind)], ["x"]))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(pieces, "ENOUGH_ROWS", 5)
    monkeypatch.setattr(pieces, "ENOUGH_BYTES", 1000)


def urls(*given):
    return ["".join(one.url for one in group) for group in merged(given)]


def test_small_pieces_are_put_together_until_there_are_enough_rows():
    assert urls(*(piece(url, [1, 2]) for url in "abcdefg")) == ["abc", "def", "g"]


def test_large_pieces_stay_alone_and_in_order():
    large = piece("L", range(5))
    assert urls(piece("a", [1]), large, piece("b", [1]), piece("c", [2]), large) == [
        "a", "L", "bc", "L",
    ]  # fmt: skip


def test_large_rows_count_by_their_bytes():
    assert urls(*(piece(url, [b"x" * 600]) for url in "abc")) == ["ab", "c"]
    assert urls(*(piece(url, [b"x" * 2000]) for url in "abc")) == ["a", "b", "c"]


def test_pieces_of_other_types_or_with_dictionaries_stay_apart():
    texts = pa.dictionary(pa.int32(), pa.string())
    given = [piece("a", [1], kind=pa.int32()), piece("b", [1], kind=pa.int64())]
    assert urls(*given) == ["a", "b"]
    assert urls(piece("a", ["u"], kind=texts), piece("b", ["v"], kind=texts)) == ["a", "b"]


def test_together_they_are_one_batch_of_the_same_rows():
    found = together([piece("a", [[1, 2], None]), piece("b", [[3]])])
    assert found.to_pydict() == {"x": [[1, 2], None, [3]]}
    assert together([piece("a", [7])]).to_pydict() == {"x": [7]}
