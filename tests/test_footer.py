"""Footers over ranged reads: how many, which version, and every way in which one is damaged."""

from __future__ import annotations

import io

import pytest

from batchinfer.arrow import pa, pq
from batchinfer.errors import ObjectChangedError, ShardError
from batchinfer.footer import (
    TAIL_BYTES,
    damage_reported,
    leaves_of,
    read_footer,
    read_object_metadata,
)
from batchinfer.storage import ObjectInfo, Retry
from batchinfer.storage.memory import MemoryStore
from tests.support import tiny


class CountingStore(MemoryStore):
    """Remembers the ranges that were read."""

    def __init__(self):
        super().__init__(Retry(0.0))
        self.ranges = []

    def read(self, path, start=0, end=None, version=None):
        self.ranges.append((start, end))
        return super().read(path, start, end, version)


@pytest.fixture
def store():
    return CountingStore()


def put(store, data, path="footers/one.parquet"):
    store.put(path, data)
    return store.info(path)


def parquet(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def footer_bytes(data):
    return int.from_bytes(data[-8:-4], "little") + 8


def test_a_small_object_is_read_whole_once(store):
    info = put(store, parquet(tiny.table(0, 50)))
    assert info.size < TAIL_BYTES
    assert read_footer(store, info).num_rows == 50
    assert store.ranges == [(0, info.size)]


def test_of_a_large_object_only_the_tail_is_read(store):
    table = pa.table({"id": list(range(100_000))})
    info = put(store, parquet(table, use_dictionary=False, compression="none"))
    assert read_footer(store, info).num_rows == 100_000
    assert store.ranges == [(info.size - 65536, info.size)]


def test_a_footer_larger_than_the_tail_takes_two_reads(store):
    data = parquet(pa.table({f"column-{n:04d}": [n] for n in range(1000)}))
    info = put(store, data)
    assert footer_bytes(data) > TAIL_BYTES
    assert read_footer(store, info).num_columns == 1000
    assert store.ranges == [
        (info.size - 65536, info.size),
        (info.size - footer_bytes(data), info.size),
    ]


def test_another_version_is_refused(store):
    info = put(store, parquet(tiny.table(0, 50)))
    put(store, parquet(tiny.table(1, 50)))
    with pytest.raises(ObjectChangedError):
        read_footer(store, info)


LEAVES = [
    ({"s"}, [1, 2]),
    ({"id.x", "s"}, [1, 2, 3]),
    ({"i"}, []),
    ({"id"}, [0, 3]),  # a dot in a name and a level of a column look the same
]


@pytest.mark.parametrize("columns, expected", LEAVES, ids=str)
def test_the_leaves_of_a_column_are_those_below_its_name(store, columns, expected):
    table = pa.table({"id": [1], "s": [{"a": [1], "b": 2}], "id.x": [1]})
    assert leaves_of(read_footer(store, put(store, parquet(table))), columns) == expected


GOOD = parquet(tiny.table(0, 50), row_group_size=20)
BROKEN = [
    ("nothing", b""),
    ("an error page", b"<html><body>403 Forbidden</body></html>"),
    ("cut short", GOOD[:-10]),
    ("only the end", GOOD[-8:]),
    ("another magic", GOOD[:-4] + b"PAR2"),
    ("a footer longer than the file", GOOD[:-8] + b"\xff\xff\xff\x7fPAR1"),
    ("a footer of no bytes", GOOD[:-8] + b"\0\0\0\0PAR1"),
]


@pytest.mark.parametrize("data", [b[1] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_what_is_not_parquet_is_said_to_be_none(store, data):
    info = put(store, data)
    with pytest.raises(pa.ArrowInvalid):
        read_footer(store, info)
    with pytest.raises(ShardError, match=r"footers/one\.parquet is not a whole Parquet object"):
        read_object_metadata(store, info)


def test_any_damaged_byte_of_a_footer_gives_a_footer_or_an_arrow_error(store):
    """Thrift without sense is an OSError of pyarrow, a name without sense a UnicodeDecodeError."""
    length = footer_bytes(GOOD)
    refused = 0
    for offset in range(length):
        damaged = bytearray(GOOD)
        damaged[len(GOOD) - length + offset] ^= 0xFF
        info = put(store, bytes(damaged))
        try:
            with damage_reported():
                read_footer(store, info).schema.to_arrow_schema()
        except pa.ArrowException:
            refused += 1
    assert refused > length // 10  # most bytes are statistics and Arrow's own schema


def test_an_object_tells_its_own_words_and_rows_only(store):
    table = pa.table({"id": [1, 2, 3]})
    ours = {"batchinfer.unit": "u1", "batchinfer.shard": "7", "theirs": "x"}
    info = put(store, parquet(table.replace_schema_metadata(ours)))
    assert read_object_metadata(store, info) == (
        {"batchinfer.unit": "u1", "batchinfer.shard": "7"},
        3,
    )


def test_an_object_without_words_has_none(store):
    info = put(store, parquet(pa.table({"id": [1]})))
    assert isinstance(info, ObjectInfo)
    assert read_object_metadata(store, info) == ({}, 1)
