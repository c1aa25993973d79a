"""How many rows are decoded at once, and which row groups are fetched together."""

from __future__ import annotations

import io

import pytest

from batchinfer.arrow import pa, pq
from batchinfer.read_size import fetches, read_rows, stored_row_bytes
from batchinfer.signature import Signature, TensorSpec
from tests.support import tiny

OUTPUTS = Signature.from_json(tiny.SIGNATURE).outputs

SIZES = [
    ("a number", (), 4096),
    ("64 floats", (64,), 4096),
    ("an image", (224, 224, 3), 55),  # 32 MiB / 602,112 bytes
    ("a film", (10**8,), 1),
    ("an open row", (None,), 4096),
]


@pytest.mark.parametrize("dims, expected", [s[1:] for s in SIZES], ids=[s[0] for s in SIZES])
def test_large_rows_are_read_fewer_at_once(dims, expected):
    spec = TensorSpec("x", "x:0", "float32", (None, *dims))
    assert read_rows(Signature((spec,), OUTPUTS)) == expected


@pytest.mark.parametrize("stored, expected", [(0, 4096), (16, 4096), (100_000, 335), (1 << 30, 1)])
def test_rows_that_are_large_in_their_file_are_read_fewer_at_once(stored, expected):
    spec = TensorSpec("x", "x:0", "string", (None,))
    assert read_rows(Signature((spec,), OUTPUTS), stored) == expected


def footer_of(*rows):
    """A file of row groups of so many rows, each of about 1000 bytes."""
    sink = io.BytesIO()
    schema = pa.schema([("x", pa.binary()), ("other", pa.binary())])
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, schema, **plain) as writer:
        for number in rows:
            writer.write_table(pa.table([[b"x" * 996] * number, [b"y"] * number], schema=schema))
    return pq.read_metadata(pa.BufferReader(sink.getvalue()))


TOGETHER = [
    ((2, 2, 2, 2), [([0, 1], False), ([2, 3], False)]),
    ((2, 6, 2), [([0], False), ([1], True), ([2], False)]),
    ((4,), [([0], False)]),
]


@pytest.mark.parametrize("rows, expected", TOGETHER, ids=str)
def test_row_groups_are_fetched_together_up_to_a_size(rows, expected, monkeypatch):
    monkeypatch.setattr("batchinfer.read_size.WHOLE_BYTES", 5000)
    assert list(fetches(footer_of(*rows), [0], 0, len(rows))) == expected


def test_only_the_columns_and_row_groups_that_are_read_count():
    footer = footer_of(60, 60, 60)
    assert list(fetches(footer, [1], 1, 3)) == [([1, 2], False)]
    assert stored_row_bytes(footer, [0], [0, 1, 2]) in range(1000, 1010)
    assert stored_row_bytes(footer, [1], [0, 1, 2]) in range(5, 10)


def test_row_groups_that_the_file_does_not_have_are_said():
    with pytest.raises(pa.ArrowInvalid, match="expected 4 row groups, found 2"):
        list(fetches(footer_of(1, 1), [0], 0, 4))
