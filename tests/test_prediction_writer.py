"""Arrays and kept columns -> one Parquet object; what plain pyarrow reads back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.errors import ShardError
from batchinfer.outputs import Outputs, Ranked
from batchinfer.plan import Segment, Shard
from batchinfer.prediction_writer import (
    PredictionWriter,
    object_metadata,
    rejects_object,
    to_arrow,
)
from batchinfer.rejects import Rejects
from batchinfer.schema import Columns
from batchinfer.signature import Signature, TensorSpec

X = TensorSpec("x", "x:0", "float32", (None,))
KEPT = pa.schema([("name", pa.string()), ("id", pa.int64())])


def columns(*outputs, kept=KEPT):
    specs = tuple(
        TensorSpec(name, f"{name}:0", dtype, (None, *dims)) for name, dtype, *dims in outputs
    )
    return Columns(Signature((X,), specs), {"x": "x"}, kept)


def write(columns, batches, metadata=None):
    """The object of some (kept, outputs) batches."""
    writer = PredictionWriter(columns, metadata or {})
    for kept, outputs in batches:
        writer.add(kept, outputs)
    return writer.finish()


def read(data):
    return pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)


def kept_rows(start, stop):
    names = [None if i % 5 == 0 else f"row {i % 7}" for i in range(start, stop)]
    return pa.table({"name": pa.array(names, pa.string()), "id": list(range(start, stop))})


def test_kept_columns_come_first_then_the_outputs():
    table = read(
        write(
            columns(("y", "float32", 2), ("best", "int64")),
            [
                ([kept_rows(0, 1), kept_rows(1, 3)], {"best": np.arange(3), "y": np.ones((3, 2))}),
                ([kept_rows(3, 4)], {"y": np.zeros((1, 2)), "best": np.array([9])}),
            ],
        )
    )
    assert table.to_pydict() == {
        "name": [None, "row 1", "row 2", "row 3"],
        "id": [0, 1, 2, 3],
        "y": [[1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]],
        "best": [0, 1, 2, 9],
    }
    assert list(table.column_names) == ["name", "id", "y", "best"]


VALUES = [
    ("values", "float32", (), np.array([0.5, 1.5], np.float32), pa.float32(), [0.5, 1.5]),
    ("float16", "float16", (), np.array([0.5, 65504], np.float16), pa.float32(), [0.5, 65504.0]),
    ("bools", "bool", (), np.array([True, False]), pa.bool_(), [True, False]),
    ("uint64", "uint64", (), np.array([0, 2**64 - 1], np.uint64), pa.uint64(), [0, 2**64 - 1]),
    ("bytes", "string", (), np.array([b"a", b"\0\xff"], object), pa.binary(), [b"a", b"\0\xff"]),
    ("vectors", "int8", (2,), np.array([[1, 2], [3, 4]], np.int8), pa.list_(pa.int8(), 2),
     [[1, 2], [3, 4]]),
    ("bool vectors", "bool", (2,), np.array([[True, False]]), pa.list_(pa.bool_(), 2),
     [[True, False]]),
    ("float16 vectors", "float16", (1,), np.array([[0.5]], np.float16), pa.list_(pa.float32(), 1),
     [[0.5]]),
    ("matrices", "int16", (2, 3), np.arange(12, dtype=np.int16).reshape(2, 2, 3),
     pa.list_(pa.list_(pa.int16(), 3), 2),
     [[[0, 1, 2], [3, 4, 5]], [[6, 7, 8], [9, 10, 11]]]),
    ("open", "int32", (None,), np.array([[1, 2, 3]], np.int32), pa.list_(pa.int32()), [[1, 2, 3]]),
    ("open and empty", "int32", (None,), np.zeros((2, 0), np.int32), pa.list_(pa.int32()),
     [[], []]),
    ("open in fixed", "int32", (2, None), np.array([[[1], [2]]], np.int32),
     pa.list_(pa.list_(pa.int32()), 2), [[[1], [2]]]),
    ("fixed in open", "int32", (None, 2), np.array([[[1, 2]], [[3, 4]]], np.int32),
     pa.list_(pa.list_(pa.int32(), 2)), [[[1, 2]], [[3, 4]]]),
    ("bytes in vectors", "string", (2,), np.array([[b"a", b""]], object),
     pa.list_(pa.binary(), 2), [[b"a", b""]]),
    ("a column of a matrix", "int32", (), np.array([[1, 2], [3, 4]], np.int32)[:, 1], pa.int32(),
     [2, 4]),
    ("a transposed matrix", "int32", (2,), np.array([[1, 2], [3, 4]], np.int32).T,
     pa.list_(pa.int32(), 2), [[1, 3], [2, 4]]),
    ("every second row", "int32", (1,), np.array([[1], [2], [3]], np.int32)[::2],
     pa.list_(pa.int32(), 1), [[1], [3]]),
    ("big endian", "int32", (), np.array([1, 2], ">i4"), pa.int32(), [1, 2]),
    ("not a number", "float32", (), np.array([np.inf, 0], np.float32), pa.float32(),
     [float("inf"), 0.0]),
]  # fmt: skip


@pytest.mark.parametrize(
    "dtype, dims, array, kind, expected", [v[1:] for v in VALUES], ids=[v[0] for v in VALUES]
)
def test_an_output_is_read_back_as_it_was(dtype, dims, array, kind, expected):
    assert to_arrow(array, kind).to_pylist() == expected
    chosen = columns(("y", dtype, *dims), kept=pa.schema([]))
    table = read(write(chosen, [((), {"y": array})]))
    assert (table.schema.field("y").type, table.num_columns) == (kind, 1)
    assert table.column("y").to_pylist() == expected


def test_a_nan_stays_a_nan_and_no_null():
    table = read(write(columns(("y", "float32"), kept=pa.schema([])),
                       [((), {"y": np.array([np.nan], np.float32)})]))  # fmt: skip
    assert table.column("y").null_count == 0
    assert np.isnan(table.column("y")[0].as_py())


def test_batches_of_an_open_dimension_may_differ_in_width():
    chosen = columns(("y", "int8", None), kept=pa.schema([]))
    batches = [((), {"y": np.array(rows, np.int8)}) for rows in ([[1, 2]], [[3]])]
    assert read(write(chosen, batches)).to_pydict() == {"y": [[1, 2], [3]]}


def test_dense_floats_are_not_copied():
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = to_arrow(array, pa.list_(pa.float32(), 2))
    assert np.shares_memory(found.flatten().to_numpy(), array)


def test_an_object_without_rows_has_the_columns():
    table = read(write(columns(("y", "float32", 2)), []))
    assert table.num_rows == 0
    assert table.schema.equals(
        pa.schema([*KEPT, ("y", pa.list_(pa.float32(), 2))]), check_metadata=False
    )


def test_num_rows_counts_what_was_added():
    writer = PredictionWriter(columns(("best", "int64")), {})
    for start, stop in [(0, 3), (3, 4)]:
        writer.add([kept_rows(start, stop)], {"best": np.arange(start, stop)})
    assert writer.num_rows == 4


# The same bytes, whatever the batches ------------------------------------------------------


def outputs(start, stop):
    ids = np.arange(start, stop)
    matrix = np.stack([ids, ids + 1, ids * 2, -ids], axis=1).reshape(-1, 2, 2)
    texts = np.array([b"%d" % (i % 3) for i in ids] + [None], object)[:-1]
    return {"matrix": matrix.astype(np.float32), "even": ids % 2 == 0, "text": texts}


def in_batches(rows, size):
    edges = [*range(0, rows, size), rows]
    return [([kept_rows(a, b)], outputs(a, b)) for a, b in zip(edges, edges[1:])]


SEVERAL = columns(("matrix", "float32", 2, 2), ("even", "bool"), ("text", "string"))


@pytest.mark.parametrize("size", [1000, 4096, 65536, 65537])
def test_the_size_of_the_batches_never_changes_a_byte(size):
    whole = write(SEVERAL, in_batches(70_000, 70_000))
    assert write(SEVERAL, in_batches(70_000, size)).equals(whole)
    groups = pq.read_metadata(pa.BufferReader(whole))
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [65536, 4464]


def test_rows_on_both_sides_of_a_cut_are_read_back_as_they_were():
    table = read(write(SEVERAL, in_batches(70_000, 4096))).slice(65_530, 12)
    expected = outputs(65_530, 65_542)
    assert table.select(["name", "id"]).to_pydict() == kept_rows(65_530, 65_542).to_pydict()
    assert table.column("matrix").to_pylist() == expected["matrix"].tolist()
    assert table.column("even").to_pylist() == expected["even"].tolist()
    assert table.column("text").to_pylist() == expected["text"].tolist()


@pytest.mark.parametrize(
    "dims, rows", [((), 65536), ((64,), 65536), ((1024,), 4096), ((10**6,), 1024)]
)
def test_row_groups_have_fewer_rows_where_rows_are_wide(dims, rows):
    writer = PredictionWriter(columns(("y", "float32", *dims)), {})
    assert writer._group_rows == rows


def test_only_texts_are_dictionary_encoded():
    chosen = columns(("y", "float32", 2), ("best", "int64"))
    data = write(chosen, [([kept_rows(0, 9)], {"y": np.ones((9, 2)), "best": np.ones(9)})])
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    found = ["RLE_DICTIONARY" in group.column(i).encodings for i in range(4)]
    assert found == [True, False, False, False]  # name, id, y, best


def test_the_labels_of_the_best_are_dictionary_encoded_too():
    spec = TensorSpec("y", "y:0", "float32", (None, 3))
    labels = pa.array(["cat", "dog", "bird"])
    chosen = Outputs((), (Ranked(spec, 2, labels), Ranked(spec, None, labels)))
    data = write(
        Columns(Signature((X,), (spec,)), {"x": "x"}, pa.schema([]), chosen),
        [((), {"y": np.array([[1, 2, 3]], np.float32)})] * 2,
    )
    assert read(data).to_pydict() == {
        "y_top2_index": [[2, 1]] * 2,
        "y_top2_value": [[3.0, 2.0]] * 2,
        "y_top2_label": [["bird", "dog"]] * 2,
        "y_argmax": [2, 2],
        "y_label": ["bird", "bird"],
    }
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    found = ["RLE_DICTIONARY" in group.column(i).encodings for i in range(5)]
    assert found == [False, False, True, False, True]


@pytest.mark.parametrize("compression", ["snappy", "zstd", "none"])
def test_the_pages_are_packed_as_was_asked_for(compression):
    spec = TensorSpec("y", "y:0", "float32", (None, 2))
    chosen = Outputs((spec,), compression=compression)
    packed = Columns(Signature((X,), (spec,)), {"x": "x"}, KEPT, chosen)
    data = write(packed, [([kept_rows(0, 9)], {"y": np.ones((9, 2), np.float32)})])
    group = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    expected = {"snappy": "SNAPPY", "zstd": "ZSTD", "none": "UNCOMPRESSED"}[compression]
    assert {group.column(i).compression for i in range(3)} == {expected}
    assert read(data).column("y").to_pylist() == [[1.0, 1.0]] * 9


def test_without_a_word_it_is_snappy():
    data = write(columns(("best", "int64"), kept=pa.schema([])), [((), {"best": np.arange(3)})])
    assert pq.read_metadata(pa.BufferReader(data)).row_group(0).column(0).compression == "SNAPPY"


# What an object says about itself ----------------------------------------------------------


def segment(number=0, rows=10):
    return Segment(f"memory://in/{number}.parquet", 1000, "v1", 0, 1, 5, rows)


def test_the_footer_tells_run_shard_and_inputs_and_nothing_that_changes():
    shard = Shard(7, (segment(),))
    words = object_metadata(shard, "f" * 64)
    footer = pq.read_metadata(pa.BufferReader(write(columns(("best", "int64")), [], words)))
    found = {k.decode(): v.decode() for k, v in footer.metadata.items() if k != b"ARROW:schema"}
    assert found == words
    assert json.loads(words.pop("batchinfer.inputs")) == [
        {"url": "memory://in/0.parquet", "version": "v1", "first_row": 5, "rows": 10}
    ]
    assert words == {
        "batchinfer.fingerprint": "f" * 64,
        "batchinfer.shard": "7",
        "batchinfer.unit": shard.unit,
        "batchinfer.rows_in": "10",
    }


def test_of_many_inputs_the_first_64_are_named_and_all_rows_counted():
    words = object_metadata(Shard(0, tuple(segment(n) for n in range(100))), "f" * 64)
    assert len(json.loads(words["batchinfer.inputs"])) == 64
    assert words["batchinfer.rows_in"] == "1000"


# Kept values of every kind ----------------------------------------------------------------

NANOSECONDS = pa.array([1_600_000_000_000_000_001, None], pa.timestamp("ns"))
NO_PARQUET = pa.schema([("span", pa.month_day_nano_interval())])


def test_nanoseconds_are_kept_to_the_last_one():
    kept = pa.table({"at": NANOSECONDS})
    outputs = {"best": np.arange(2)}
    table = read(write(columns(("best", "int64"), kept=kept.schema), [([kept], outputs)]))
    assert table.column("at").type == pa.timestamp("ns")
    assert table.column("at").cast(pa.int64()).to_pylist() == [1_600_000_000_000_000_001, None]


def test_nanoseconds_of_rejected_rows_are_kept_too():
    found = Rejects(pa.schema([("at", pa.timestamp("ns"))]))
    found.add("a", [0, 1], ["x", "x"], pa.table({"at": NANOSECONDS}))
    assert read(rejects_object(found, {})).column("at").cast(pa.int64()).to_pylist() == [
        1_600_000_000_000_000_001,
        None,
    ]


def test_a_type_that_parquet_does_not_have_fails_the_shard():
    with pytest.raises(ShardError, match=r"the predictions as Parquet: .*interval"):
        PredictionWriter(columns(("best", "int64"), kept=NO_PARQUET), {})
    with pytest.raises(ShardError, match=r"the rejected rows as Parquet: .*interval"):
        rejects_object(Rejects(NO_PARQUET), {})


def test_a_text_that_utf8_does_not_have_fails_the_shard():
    alone = np.array(["caf\udce9"], object)
    with pytest.raises(ShardError, match=r"cannot write the predictions as Parquet: .*utf"):
        write(columns(("text", "string")), [([kept_rows(0, 1)], {"text": alone})])


def test_kept_rows_that_cannot_be_put_together_fail_the_shard():
    with pytest.raises(ShardError, match="cannot write the predictions as Parquet: "):
        write(columns(("best", "int64")), [([kept_rows(0, 2)], {"best": np.arange(3)})])


# Rejects ----------------------------------------------------------------------------------


def test_rejects_tell_file_row_and_reason_beside_the_kept_columns():
    found = Rejects(KEPT)
    found.add("a", [3], ["x: null"], kept_rows(3, 4))
    found.add("b", [1 << 40], ["y"], kept_rows(5, 6))
    assert found.num_rows == 2
    assert read(rejects_object(found, {})).to_pydict() == {
        "_file": ["a", "b"],
        "_row": [3, 1 << 40],
        "_reason": ["x: null", "y"],
        "name": ["row 3", None],
        "id": [3, 5],
    }


def test_rejects_without_kept_columns_and_with_words():
    found = Rejects(pa.schema([]))
    found.add("a", [0], ["x"], pa.table({}))
    data = rejects_object(found, {"batchinfer.unit": "u"})
    assert read(data).to_pydict() == {"_file": ["a"], "_row": [0], "_reason": ["x"]}
    assert pq.read_metadata(pa.BufferReader(data)).metadata[b"batchinfer.unit"] == b"u"
