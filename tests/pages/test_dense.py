"""Dense columns against pyarrow itself: every kind of file that pyarrow writes, and damage."""

from __future__ import annotations

import contextlib
import io
import itertools

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.pages import NotDenseError, dense_columns
from batchinfer.pages.dense import byte_range
from batchinfer.pages.window import Window

ROWS = 3000


def lists(values, kind):
    """Rows of (n, *dims) as nested lists of an Arrow type."""
    kinds, array = [kind], pa.array(values.reshape(-1))
    for _ in values.shape[2:]:
        kinds.append(kinds[-1].value_type)
    for one, width in zip(reversed(kinds), reversed(values.shape[1:])):
        offsets = np.arange(0, len(array) + 1, width)
        if pa.types.is_fixed_size_list(one):
            array = pa.FixedSizeListArray.from_arrays(array, width)
        elif pa.types.is_large_list(one):
            array = pa.LargeListArray.from_arrays(pa.array(offsets), array)
        else:
            array = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), array)
    return array


def written(array, **options):
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": array}), sink, **options)
    return sink.getvalue()


def read(data, dims, row_group=0):
    """The values by pages; raises what they raise."""
    footer = pq.read_metadata(pa.BufferReader(data))
    (column,) = dense_columns(footer, footer.schema.to_arrow_schema(), [("x", dims)])
    chunk = footer.row_group(row_group).column(0)
    window = Window(lambda start, end: data[start:end], *byte_range(chunk))
    pieces = list(column.values(chunk, window))
    return np.concatenate(pieces).reshape((-1,) + dims)


def values_of(dtype, width, distinct, seed=0):
    rng = np.random.RandomState(seed)
    if np.dtype(dtype).kind == "f":
        pool = rng.rand(distinct).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        pool = rng.randint(
            limits.min,
            limits.max,
            distinct,
            dtype=dtype,
        )
    return pool[rng.randint(0, distinct, (ROWS, width))]


CASES = list(
    itertools.product(
        ["float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"],
        [1, 3, 16, 64],  # levels that fit no group, part of one, two, many
        [250, 100_000],  # a dictionary for all values, and one that is given up half way
    )
)


@pytest.mark.parametrize("dtype, width, distinct", CASES)
def test_every_dtype_width_and_dictionary_gives_what_was_written(dtype, width, distinct):
    values = values_of(dtype, width, distinct)
    data = written(lists(values, pa.list_(pa.from_numpy_dtype(values.dtype))), version="2.6")
    found = read(data, (width,))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(values, found)


OPTIONS = {
    "no compression": {"compression": "none"},
    "gzip": {"compression": "gzip"},
    "zstd": {"compression": "zstd"},
    "snappy": {"compression": "snappy"},
    "no dictionary": {"use_dictionary": False},
    "pages of version 2": {"data_page_version": "2.0"},
    "version 2, not compressed": {"data_page_version": "2.0", "compression": "none"},
    "small pages": {"data_page_size": 1000},
    "small pages of version 2": {"data_page_size": 1000, "data_page_version": "2.0"},
    "no statistics": {"write_statistics": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("width", [5, 64])
def test_every_way_to_write_gives_what_was_written(options, width):
    values = values_of("float32", width, 100_000)
    data = written(lists(values, pa.list_(pa.float32())), **options)
    np.testing.assert_array_equal(values, read(data, (width,)))


@pytest.mark.parametrize(
    "kind, dims",
    [
        (pa.list_(pa.float32()), (6,)),
        (pa.large_list(pa.float32()), (6,)),
        (pa.list_(pa.float32(), 6), (6,)),
        (pa.list_(pa.list_(pa.float32())), (2, 3)),
        (pa.list_(pa.list_(pa.list_(pa.float32()))), (4, 2, 3)),
        (pa.list_(pa.list_(pa.float32(), 3)), (2, 3)),
    ],
    ids=str,
)
def test_every_kind_of_list_gives_what_was_written(kind, dims):
    values = values_of("float32", int(np.prod(dims)), 100_000).reshape((ROWS,) + dims)
    np.testing.assert_array_equal(values, read(written(lists(values, kind)), dims))


def test_each_row_group_is_read_by_itself():
    values = values_of("float32", 8, 100_000)
    data = written(lists(values, pa.list_(pa.float32())), row_group_size=1000)
    np.testing.assert_array_equal(values[1000:2000], read(data, (8,), row_group=1))


@pytest.mark.parametrize("row", [0, 1, 1499, ROWS - 1])
@pytest.mark.parametrize("wrong", [None, [], [1.0] * 7, [1.0] * 9, [1.0] * 7 + [None]])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_row_that_is_not_dense_is_noticed_wherever_it_is(row, wrong, version):
    rows = [[float(i)] * 8 for i in range(ROWS)]
    rows[row] = wrong
    with pytest.raises(NotDenseError):
        read(written(pa.array(rows, pa.list_(pa.float32())), data_page_version=version), (8,))


def test_lengths_that_make_up_for_each_other_are_noticed():
    rows = [[1.0] * 8] * ROWS
    rows[70], rows[71] = [1.0] * 7, [1.0] * 9
    with pytest.raises(NotDenseError):
        read(written(pa.array(rows, pa.list_(pa.float32()))), (8,))


def test_a_damaged_header_of_a_page_is_damage_whatever_bit_it_is():
    values = values_of("float32", 8, 40)
    sound = written(lists(values, pa.list_(pa.float32())), compression="none",
                    data_page_version="2.0")  # fmt: skip
    start = pq.read_metadata(pa.BufferReader(sound)).row_group(0).column(0).data_page_offset
    for bit in range(8 * 60):
        data = bytearray(sound)
        data[start + bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(NotDenseError):
            read(bytes(data), (8,))


def by_pyarrow(data, otherwise):
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except OSError:
        return otherwise.reshape(-1)
    return np.array(table.column("x").combine_chunks().flatten())


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_byte_is_an_error_or_what_pyarrow_reads_too(seed):
    """pyarrow checks no sums either: a value with a wrong bit is read as it lies there.

    Where pyarrow itself gives up, over statistics say, the values have to be the true ones.
    """
    rng = np.random.RandomState(seed)
    values = values_of("float32", 8, 40)
    data = bytearray(written(lists(values, pa.list_(pa.float32())), compression="none"))
    footer = pq.read_metadata(pa.BufferReader(bytes(data)))
    chunk = footer.row_group(0).column(0)
    at = chunk.dictionary_page_offset + rng.randint(0, min(chunk.total_compressed_size, 400))
    data[at] ^= 1 << rng.randint(0, 8)
    try:
        found = read(bytes(data), (8,))
    except NotDenseError:
        return
    np.testing.assert_array_equal(by_pyarrow(bytes(data), values), found.reshape(-1))


@pytest.mark.parametrize(
    "array, dims",
    [
        (pa.array([[True]]), (1,)),
        (pa.array([["a"]]), (1,)),
        (pa.array([[{"a": 1}]]), (1,)),
        (pa.array([1.0]), ()),
        (pa.array([[1.0]]), (1, 1)),
    ],
    ids=["bool", "text", "struct", "no list", "one list for two dimensions"],
)
def test_other_columns_are_left_to_pyarrow(array, dims):
    footer = pq.read_metadata(pa.BufferReader(written(array)))
    assert dense_columns(footer, footer.schema.to_arrow_schema(), [("x", dims)]) == []
