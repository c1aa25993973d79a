"""Row groups -> batches in input order; rows and files that cannot be fed, and what is said."""

from __future__ import annotations

import io
import itertools
import os
import uuid

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.errors import ObjectChangedError, ObjectNotFoundError, ShardError
from batchinfer.input_files import read_footers
from batchinfer.inputs import list_inputs
from batchinfer.plan import Segment, Shard
from batchinfer.read_size import READ_ROWS
from batchinfer.record_batches import RowGroups
from batchinfer.schema import Columns
from batchinfer.shard_reader import ShardReader
from batchinfer.signature import Signature, TensorSpec
from batchinfer.storage import open_store
from batchinfer.storage.store import RangeReader
from tests.support import tiny

SIGNATURE = Signature.from_json(tiny.SIGNATURE)
COLUMNS = Columns(SIGNATURE, {"x": "x"}, pa.schema([("id", pa.int64())]))


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def put(url, table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    put_bytes(url, sink.getvalue())


def put_bytes(url, data):
    store, path = open_store(url)
    store.put(path, data)


def segment(url, first=0, stop=None):
    """Row groups [first, stop) of a file as a plan would hold them; all by default."""
    (found,) = read_footers(list_inputs([url]), ["x"])
    rows = [group.num_rows for group in found.row_groups]
    stop = len(rows) if stop is None else stop
    rows_before, num_rows = sum(rows[:first]), sum(rows[first:stop])
    return Segment(
        found.url, found.size, found.version, first, stop, rows_before, num_rows, found.problem
    )


def reader(*segments, columns=COLUMNS):
    return ShardReader(Shard(0, segments), columns, open_store)


def ids(batches):
    return [i for b in batches for table in b.kept for i in table.column("id").to_pylist()]


def feeds(batches, name="x"):
    return np.concatenate([batch.feeds[name] for batch in batches])


def assert_rows(batches, expected):
    """These ids in this order, each with its own x."""
    batches = list(batches)
    assert ids(batches) == list(expected)
    assert feeds(batches).tolist() == tiny.features(np.array(expected)).tolist()
    assert sum(batch.num_rows for batch in batches) == len(expected)


def test_segments_come_in_order_each_with_its_own_row_groups(root):
    put(f"{root}/b.parquet", tiny.table(0, 50), row_group_size=20)
    put(f"{root}/a.parquet", tiny.table(100, 30), row_group_size=10)
    segments = [
        segment(f"{root}/b.parquet", 1, 3),
        segment(f"{root}/a.parquet", 0, 2),
        segment(f"{root}/b.parquet", 0, 1),
    ]
    assert_rows(reader(*segments), [*range(20, 50), *range(100, 120), *range(20)])


def test_row_groups_larger_than_a_read_are_streamed(root):
    rows = READ_ROWS * 2 + 5
    put(f"{root}/a.parquet", tiny.table(0, rows))
    batches = list(reader(segment(f"{root}/a.parquet")))
    assert [batch.num_rows for batch in batches] == [READ_ROWS, READ_ROWS, 5]
    assert_rows(batches, range(rows))


def test_files_and_row_groups_without_rows_give_nothing(root):
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tiny.table(0, 1).schema) as writer:
        for table in (tiny.table(0, 2), tiny.table(0, 2).slice(0, 0), tiny.table(2, 2)):
            writer.write_table(table)
    put_bytes(f"{root}/holes.parquet", sink.getvalue())
    put(f"{root}/empty.parquet", tiny.table(0, 0))
    segments = [segment(f"{root}/{name}.parquet") for name in ("empty", "holes", "empty")]
    assert_rows(reader(*segments), range(4))


def test_the_order_of_columns_and_others_beside_them_do_not_matter(root):
    table = tiny.table(0, 5)
    more = table.append_column("x2", pa.array([[1.0]] * 5)).append_column("id.x", pa.array([7] * 5))
    put(f"{root}/a.parquet", more.select(["x2", "x", "name", "id.x", "id"]))
    assert_rows(reader(segment(f"{root}/a.parquet")), range(5))


def test_only_the_columns_that_are_needed_are_read(tmp_path):
    url = str(tmp_path / "a.parquet")
    put(url, tiny.table(0, 1000), use_dictionary=["name"], compression="none")
    found = segment(url)
    chunk = pq.read_metadata(url).row_group(0).column(1)
    assert chunk.path_in_schema == "name"
    with open(url, "r+b") as file:  # ruin the names, which are not asked for
        file.seek(chunk.dictionary_page_offset)
        file.write(b"\xff" * chunk.total_compressed_size)
    info = open_store(url)[0].info(url)
    ruined = Segment(url, info.size, info.version, 0, 1, 0, 1000)
    assert found.num_rows == 1000
    assert_rows(reader(ruined), range(1000))
    keeps_names = Columns(SIGNATURE, {"x": "x"}, pa.schema([("name", pa.string())]))
    with pytest.raises(ShardError, match=r"a\.parquet: cannot read: "):
        list(reader(ruined, columns=keeps_names))


@pytest.mark.parametrize("encoded", [True, False])
def test_dictionaries_are_read_as_their_values(root, encoded):
    names = pa.array(["a", None, "b", "a"])
    words = pa.array(["ü", "", "ü", "x"])
    table = pa.table(
        {
            "name": names.dictionary_encode() if encoded else names,
            "word": words.dictionary_encode() if encoded else words,
        }
    )
    put(f"{root}/a.parquet", table)
    spec = TensorSpec("word", "word:0", "string", (None,))
    chosen = Columns(
        Signature((spec,), SIGNATURE.outputs), {"word": "word"}, pa.schema([("name", pa.string())])
    )
    (batch,) = reader(segment(f"{root}/a.parquet"), columns=chosen)
    assert batch.kept[0].to_pydict() == {"name": ["a", None, "b", "a"]}
    assert batch.kept[0].schema == chosen.kept
    assert batch.feeds["word"].tolist() == ["ü".encode(), b"", "ü".encode(), b"x"]


def test_lists_of_other_writers_are_kept_under_one_name(root):
    """Spark calls a list's values `element`, pyarrow 12 calls them `item`."""
    kept = pa.schema([("tags", pa.list_(pa.string()))])
    for name, value in [("a", "item"), ("b", "element")]:
        kind = pa.list_(pa.field(value, pa.string()))
        table = tiny.table(0, 2).append_column("tags", pa.array([["t"], None], kind))
        put(f"{root}/{name}.parquet", table)
    chosen = Columns(SIGNATURE, {"x": "x"}, kept)
    segments = [segment(f"{root}/{name}.parquet") for name in "ab"]
    tables = [table for batch in reader(*segments, columns=chosen) for table in batch.kept]
    assert pa.concat_tables(tables).to_pydict() == {"tags": [["t"], None, ["t"], None]}


def test_kept_columns_of_many_types_are_kept_as_one(root):
    for name, kind in [("a", pa.int8()), ("b", pa.null()), ("c", pa.int64())]:
        key = pa.array([None if pa.types.is_null(kind) else 7], kind)
        put(f"{root}/{name}.parquet", tiny.table(0, 1).set_column(0, "id", key))
    batches = list(reader(*(segment(f"{root}/{name}.parquet") for name in "abc")))
    assert ids(batches) == [7, None, 7]
    assert {table.schema for batch in batches for table in batch.kept} == {COLUMNS.kept}


def test_a_kept_value_that_does_not_fit_fails_the_shard(root):
    stamps = pa.array([1 << 50], pa.timestamp("ms"))
    put(f"{root}/a.parquet", tiny.table(0, 1).append_column("at", stamps))
    chosen = Columns(SIGNATURE, {"x": "x"}, pa.schema([("at", pa.timestamp("ns"))]))
    with pytest.raises(ShardError, match=r"a\.parquet: cannot keep what it holds: .*out of bounds"):
        list(reader(segment(f"{root}/a.parquet"), columns=chosen))


def test_without_kept_columns_rows_are_counted_all_the_same(root):
    put(f"{root}/a.parquet", tiny.table(0, 5))
    chosen = Columns(SIGNATURE, {"x": "x"}, pa.schema([]))
    (batch,) = reader(segment(f"{root}/a.parquet"), columns=chosen)
    assert (batch.num_rows, batch.kept) == (5, ())


# Rows that cannot be fed ------------------------------------------------------------------


def table_of(rows, first_id=0):
    kind = pa.list_(pa.float32())
    return pa.table({"id": list(range(first_id, first_id + len(rows))), "x": pa.array(rows, kind)})


GOOD = [1.0, 2.0, 3.0, 4.0]


def rejected(found, *names):
    """The rejected rows of a reader, as tuples of these columns."""
    table = found.rejects.to_table()
    return list(zip(*(table.column(name).to_pylist() for name in names)))


def test_rejects_are_counted_from_the_start_of_their_file(root):
    rows = [GOOD, None, GOOD, GOOD, [1.0], GOOD, GOOD, [5.0, None, 7.0, 8.0]]
    put(f"{root}/a.parquet", table_of(rows), row_group_size=3)
    put(f"{root}/b.parquet", table_of([None, GOOD], first_id=100))
    found = reader(segment(f"{root}/b.parquet"), segment(f"{root}/a.parquet", 1, 3))
    batches = list(found)
    assert ids(batches) == [101, 3, 5, 6]
    assert feeds(batches).tolist() == [GOOD] * 4
    assert rejected(found, "_file", "_row", "_reason", "id") == [
        (f"{root}/b.parquet", 0, "x: null", 100),
        (f"{root}/a.parquet", 4, "x: list of 1 values, expected 4", 4),
        (f"{root}/a.parquet", 7, "x: null inside the list", 7),
    ]


def test_rows_beyond_the_first_read_keep_their_numbers(root):
    rows = [GOOD] * (READ_ROWS + 10)
    rows[READ_ROWS + 3] = None
    put(f"{root}/a.parquet", table_of(rows))
    found = reader(segment(f"{root}/a.parquet"))
    assert sum(batch.num_rows for batch in found) == READ_ROWS + 9
    assert rejected(found, "_row", "id") == [(READ_ROWS + 3, READ_ROWS + 3)]


def test_a_row_is_rejected_once_though_several_inputs_refuse_it(root):
    specs = [TensorSpec(name, f"{name}:0", "int8", (None,)) for name in "ab"]
    table = pa.table({"p": [1, None, 3, 300], "q": [1, None, 999, 4]})
    put(f"{root}/a.parquet", table)
    chosen = Columns(
        Signature(tuple(specs), SIGNATURE.outputs), {"a": "p", "b": "q"}, pa.schema([])
    )
    found = reader(segment(f"{root}/a.parquet"), columns=chosen)
    (batch,) = found
    assert {name: array.tolist() for name, array in batch.feeds.items()} == {"a": [1], "b": [1]}
    assert rejected(found, "_row", "_reason") == [
        (1, "p: null"),
        (2, "q: 999 does not fit int8"),
        (3, "p: 300 does not fit int8"),
    ]


def test_a_file_of_bad_rows_only_gives_no_row(root):
    put(f"{root}/a.parquet", table_of([None, None]))
    found = reader(segment(f"{root}/a.parquet"))
    assert [batch.num_rows for batch in found] == [0]
    assert rejected(found, "_row") == [(0,), (1,)]


# Files that cannot be read ----------------------------------------------------------------


def test_a_problem_of_the_plan_is_said():
    bad = Segment("memory://in/a.parquet", 100, "v1", 0, 0, 0, 0, "no column 'x'")
    with pytest.raises(ShardError, match=r"memory://in/a\.parquet: no column 'x'"):
        list(reader(bad))


def test_a_file_that_changed_after_the_plan_is_not_read(root):
    url = f"{root}/a.parquet"
    put(url, tiny.table(0, 50))
    planned = segment(url)
    put(url, tiny.table(1, 50))
    with pytest.raises(ObjectChangedError, match=r"a\.parquet changed after it was planned"):
        list(reader(planned))


def test_a_file_that_is_gone_is_said(root):
    url = f"{root}/a.parquet"
    put(url, tiny.table(0, 50))
    planned = segment(url)
    store, path = open_store(url)
    store.delete(path)
    with pytest.raises(ObjectNotFoundError, match=r"a\.parquet"):
        list(reader(planned))


@pytest.mark.parametrize("change, words", [
    ({"num_rows": 51}, r"expected 51 rows in row groups \[0, 3\), read 50"),
    ({"num_rows": 49}, r"expected 49 rows in row groups \[0, 3\), read 50"),
    ({"stop_row_group": 2}, r"expected 50 rows in row groups \[0, 2\), read 40"),
    ({"stop_row_group": 4}, "cannot read"),
])  # fmt: skip
def test_a_file_with_other_rows_than_were_planned_is_said(root, change, words):
    put(f"{root}/a.parquet", tiny.table(0, 50), row_group_size=20)
    planned = Segment(**{**segment(f"{root}/a.parquet")._asdict(), **change})
    with pytest.raises(ShardError, match=words):
        list(reader(planned))


def test_a_damaged_page_is_said(root):
    url = f"{root}/a.parquet"
    put(url, tiny.table(0, 1000), compression="snappy")
    store, path = open_store(url)
    data = bytearray(store.read(path))
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    put_bytes(url, bytes(data))
    with pytest.raises(ShardError, match=r"a\.parquet: cannot read: "):
        list(reader(segment(url)))


def test_a_column_of_fewer_rows_than_the_footer_says_is_said(root, monkeypatch):
    put(f"{root}/a.parquet", tiny.table(0, 20_000), row_group_size=20_000)
    whole = RowGroups._by_pyarrow
    monkeypatch.setattr(RowGroups, "_by_pyarrow", lambda *args: itertools.islice(whole(*args), 2))
    with pytest.raises(ShardError, match=r"expected 20000 rows .* read 8192"):
        list(reader(segment(f"{root}/a.parquet")))


NULL_IN_LIST = os.path.join(os.path.dirname(tiny.__file__), "null_in_fixed_size_list.parquet")


def test_a_null_in_a_fixed_size_list_is_rejected_or_told_with_what_to_do(root):
    """The file is of pyarrow 26: ids 1 and 2, a row of four floats and a null."""
    with open(NULL_IN_LIST, "rb") as file:
        put_bytes(f"{root}/a.parquet", file.read())
    found = reader(segment(f"{root}/a.parquet"))
    if int(pa.__version__.split(".")[0]) <= 12:
        with pytest.raises(ShardError, match="write it as a list column"):
            list(found)
    else:
        assert ids(found) == [1]
        assert rejected(found, "_row", "_reason") == [(1, "x: null")]


def test_rows_that_can_be_fed_say_which_rows_of_their_files_they_are(root):
    bad = [GOOD[:3], GOOD, GOOD, GOOD[:3], GOOD[:3], GOOD, GOOD[:3]]
    put(f"{root}/a.parquet", table_of(bad))
    put(f"{root}/b.parquet", table_of([GOOD, GOOD]))
    a, b = segment(f"{root}/a.parquet"), segment(f"{root}/b.parquet")
    (batch,) = reader(a, b)
    assert batch.places == ((a.url, 1, 2), (a.url, 5, 1), (b.url, 0, 2))


# How much at once -------------------------------------------------------------------------


class CountingStore:
    """A store that notes the size of every range that is read from it."""

    def __init__(self, store):
        self.store, self.sizes = store, []

    def open_input(self, info):
        return RangeReader(self, info)

    def url(self, path):
        return self.store.url(path)

    def read(self, path, start=0, end=None, version=None):
        self.sizes.append(end - start)
        return self.store.read(path, start, end, version)


def ranges(found):
    """The sizes of the ranges that a reader asks its store for, and its rows."""
    store, path = found.open_store(found.shard.segments[0].url)
    counting = CountingStore(store)
    found.open_store = lambda url: (counting, path)
    return counting.sizes, list(found)


def test_small_row_groups_are_fetched_together_and_large_ones_in_pieces(root, monkeypatch):
    put(f"{root}/a.parquet", tiny.table(0, 90_000), row_group_size=30_000, compression="none",
        use_dictionary=False, data_page_size=1 << 13)  # fmt: skip
    planned = segment(f"{root}/a.parquet")
    sizes, batches = ranges(reader(planned))
    assert_rows(batches, range(90_000))
    assert len(sizes) == 2  # the footer, and all row groups with the names between the columns
    assert max(sizes) > 3 << 20

    monkeypatch.setattr("batchinfer.read_size.WHOLE_BYTES", 1 << 16)
    monkeypatch.setattr("batchinfer.record_batches.STREAM_BYTES", 1 << 15)
    monkeypatch.setattr("batchinfer.storage.prefetched.WINDOW_BYTES", 1 << 15)
    monkeypatch.setattr("batchinfer.storage.prefetched.SMALLEST_GAP_BYTES", 0)
    sizes, batches = ranges(reader(planned))
    assert_rows(batches, range(90_000))
    assert len(sizes) > 60
    assert max(sizes) <= 1 << 16  # of the footer


def test_rows_come_the_same_whatever_is_read_at_once(root, monkeypatch):
    rows = [GOOD if i % 7 else None for i in range(1000)]
    put(f"{root}/a.parquet", table_of(rows), row_group_size=150)
    planned = segment(f"{root}/a.parquet", 1, 6)
    at_once = reader(planned)
    expected = ids(at_once)
    for whole, stream, decoded in [(1, 1000, 100), (4000, 100, 1000), (1 << 20, 1, 1)]:
        monkeypatch.setattr("batchinfer.read_size.WHOLE_BYTES", whole)
        monkeypatch.setattr("batchinfer.record_batches.STREAM_BYTES", stream)
        monkeypatch.setattr("batchinfer.read_size.READ_BYTES", decoded)
        found = reader(planned)
        assert ids(found) == expected
        assert found.rejects.to_table() == at_once.rejects.to_table()


def test_long_texts_are_decoded_fewer_at_once(root):
    texts = pa.array([b"a" * (1 << 20)] * 70)
    put(f"{root}/a.parquet", pa.table({"x": texts}), use_dictionary=False)
    spec = TensorSpec("x", "x:0", "string", (None,))
    chosen = Columns(Signature((spec,), SIGNATURE.outputs), {"x": "x"}, pa.schema([]))
    batches = list(reader(segment(f"{root}/a.parquet"), columns=chosen))
    assert max(batch.num_rows for batch in batches) <= 32
    assert sum(batch.num_rows for batch in batches) == 70


# Many small files -------------------------------------------------------------------------


def test_rejects_of_files_that_are_read_together_keep_their_own_file_and_row(root):
    for number, bad in enumerate([None, 2, 0]):
        rows = [GOOD] * 4
        if bad is not None:
            rows[bad] = [1.0]
        put(f"{root}/{number}.parquet", table_of(rows, number * 4))
    found = reader(*[segment(f"{root}/{number}.parquet") for number in range(3)])
    (batch,) = found
    assert ids([batch]) == [0, 1, 2, 3, 4, 5, 7, 9, 10, 11]
    names = [
        (url.rpartition("/")[2], row, i) for url, row, i in rejected(found, "_file", "_row", "id")
    ]
    assert names == [("1.parquet", 2, 6), ("2.parquet", 0, 8)]


def test_the_file_that_cannot_be_kept_is_named_among_those_read_together(root):
    kept = pa.schema([("day", pa.timestamp("ns"))])
    for number, year in enumerate([2020, 2021, 2500]):  # nanoseconds end in 2262
        day = pa.array([np.datetime64(f"{year}-01-01", "s")])
        put(f"{root}/{number}.parquet", pa.table({"x": [GOOD], "day": day}))
    segments = [segment(f"{root}/{number}.parquet") for number in range(3)]
    with pytest.raises(ShardError, match=r"2\.parquet: cannot keep what it holds"):
        list(reader(*segments, columns=Columns(SIGNATURE, {"x": "x"}, kept)))
