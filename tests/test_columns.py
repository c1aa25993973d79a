"""Arrow columns as model inputs: what fits, what does not, and the arrays that come out."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.arrow import pa
from batchinfer.columns import bad_rows, to_numpy, to_rows, type_problem
from batchinfer.signature import TensorSpec


def spec(dtype="float32", *dims):
    return TensorSpec("x", "x:0", dtype, (None, *dims))


LISTS = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
NESTED = [[[1, 2], [3, 4]], [[5, 6], [7, 8]], [[9, 10], [11, 12]]]
RAW = [bytes(row) for row in LISTS]
FITS = [
    ("plain values", pa.array([1, 2, 3], pa.float32()), spec("float32"), [1, 2, 3]),
    ("int64 into float32", pa.array([1, 2, 3], pa.int64()), spec("float32"), [1, 2, 3]),
    ("float64 into float32", pa.array([1, 2, 3], pa.float64()), spec("float32"), [1, 2, 3]),
    ("float16", pa.array(np.array([1, 2], np.float16)), spec("float32"), [1, 2]),
    ("bools", pa.array([True, False, True]), spec("bool"), [True, False, True]),
    ("bools into float", pa.array([True, False]), spec("float32"), [1, 0]),
    ("values into [n, 1]", pa.array([1, 2, 3], pa.int32()), spec("int32", 1), [[1], [2], [3]]),
    ("list", pa.array(LISTS, pa.list_(pa.uint8())), spec("float32", 4), LISTS),
    ("large list", pa.array(LISTS, pa.large_list(pa.uint8())), spec("uint8", 4), LISTS),
    ("fixed-size list", pa.array(LISTS, pa.list_(pa.int8(), 4)), spec("int32", 4), LISTS),
    ("flat list, row-major", pa.array(LISTS, pa.list_(pa.int32())), spec("int32", 2, 2), NESTED),
    ("nested lists", pa.array(NESTED, pa.list_(pa.list_(pa.int32()))), spec("int32", 2, 2), NESTED),
    ("nested, fixed", pa.array(NESTED, pa.list_(pa.list_(pa.int8(), 2), 2)), spec("int8", 2, 2),
     NESTED),
    ("bytes", pa.array(RAW), spec("uint8", 4), LISTS),
    ("large bytes", pa.array(RAW, pa.large_binary()), spec("uint8", 4), LISTS),
    ("fixed-size bytes", pa.array(RAW, pa.binary(4)), spec("uint8", 2, 2), NESTED),
    ("strings", pa.array(["a", "bb"]), spec("string"), [b"a", b"bb"]),
    ("bytes as strings", pa.array([b"a", b"\0\xff"]), spec("string"), [b"a", b"\0\xff"]),
    ("lists of strings", pa.array([["a", "b"], ["c", "d"]]), spec("string", 2),
     [[b"a", b"b"], [b"c", b"d"]]),
]  # fmt: skip


@pytest.mark.parametrize("array, spec, expected", [f[1:] for f in FITS], ids=[f[0] for f in FITS])
def test_a_column_that_fits(array, spec, expected):
    assert type_problem(array.type, spec) is None
    assert bad_rows(array, spec) == {}
    found = to_numpy(array, spec)
    assert (found.dtype, found.shape[1:]) == (spec.numpy_dtype, spec.row_shape)
    assert found.tolist() == expected


@pytest.mark.parametrize("array, spec, expected", [f[1:] for f in FITS], ids=[f[0] for f in FITS])
def test_a_slice_of_a_column_gives_its_own_rows(array, spec, expected):
    piece = array.slice(1, 1)
    assert bad_rows(piece, spec) == {}
    assert to_numpy(piece, spec).tolist() == expected[1:2]


def test_float_lists_are_not_copied():
    flat = pa.array(np.arange(12, dtype=np.float32))
    array = pa.FixedSizeListArray.from_arrays(flat, 4)
    assert np.shares_memory(to_numpy(array, spec("float32", 4)), flat.to_numpy())


MISFITS = [
    ("float into int", pa.float32(), spec("int32"), "without losing values"),
    ("number into bool", pa.int8(), spec("bool"), "without losing values"),
    ("text into number", pa.string(), spec("float32"), "expected numbers"),
    ("number into text", pa.int8(), spec("string"), "expected strings"),
    ("value into vector", pa.float32(), spec("float32", 4), "expected 4 values a row"),
    ("vector into value", pa.list_(pa.float32(), 4), spec("float32"), "expected 1 values a row"),
    ("width", pa.list_(pa.float32(), 5), spec("float32", 4), "expected 4 values a row"),
    (
        "depth",
        pa.list_(pa.list_(pa.list_(pa.int8()))),
        spec("int8", 2, 2),
        "expected 4 values a row",
    ),
    ("byte width", pa.binary(5), spec("uint8", 4), "expected 4 values a row"),
    ("open row shape", pa.list_(pa.float32()), spec("float32", None), "row shape"),
    ("timestamps", pa.timestamp("us"), spec("int64"), "expected numbers"),
]


@pytest.mark.parametrize(
    "column, spec, words", [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS]
)
def test_a_type_that_never_fits(column, spec, words):
    assert words in type_problem(column, spec)


LIST = pa.list_(pa.int8())
BAD = [
    ("null value", pa.array([1.0, None, 3.0]), spec("float32"), {1: "null"}),
    ("null list", pa.array([[1, 2], None], pa.list_(pa.int8())), spec("int8", 2), {1: "null"}),
    ("null in a list", pa.array([[1, None], [1, 2]], pa.list_(pa.int8())), spec("int8", 2),
     {0: "null inside the list"}),
    ("lengths", pa.array([[1, 2], [1], [1, 2, 3], [], [3, 4]], LIST), spec("int8", 2),
     {1: "list of 1 values, expected 2", 2: "list of 3 values, expected 2",
      3: "list of 0 values, expected 2"}),
    # Together as many values as two good rows would have: the lengths alone tell.
    ("lengths that add up", pa.array([[1], [1, 2, 3]], pa.list_(pa.int8())), spec("int8", 2),
     {0: "list of 1 values, expected 2", 1: "list of 3 values, expected 2"}),
    ("inner lengths", pa.array([[[1, 2], [3]], [[1, 2], [3, 4]]]), spec("int64", 2, 2),
     {0: "list of 1 values, expected 2"}),
    ("range", pa.array([1, 300, -1], pa.int64()), spec("uint8"),
     {1: "300 does not fit uint8", 2: "-1 does not fit uint8"}),
    ("range of a list", pa.array([[1, 2], [3, 1 << 40]]), spec("int32", 2),
     {1: "1099511627776 does not fit int32"}),
    ("bytes", pa.array([b"abcd", b"abc"]), spec("uint8", 4), {1: "3 bytes, expected 4"}),
    ("null fixed-size list", pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), spec("int8", 2),
     {1: "null"}),
]  # fmt: skip


@pytest.mark.parametrize("array, spec, expected", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_rows_that_cannot_be_fed(array, spec, expected):
    assert type_problem(array.type, spec) is None
    assert bad_rows(array, spec) == expected


LOST = [
    ("int64 into float32", "int64", "float32", [1 << 24, (1 << 24) + 1, -(1 << 24) - 1, 3 << 40],
     ["16777217", "-16777217"]),
    ("int64 into float64", "int64", "float64", [1 << 53, (1 << 53) + 1, 1 << 60, (1 << 63) - 1,
     -(1 << 63)], ["9007199254740993", "9223372036854775807"]),
    ("uint64 into float64", "uint64", "float64", [1 << 53, (1 << 53) + 1, (1 << 64) - 1],
     ["9007199254740993", "18446744073709551615"]),
    ("int32 into float16", "int32", "float16", [2048, 2049, 2050, 65504, 65536, -70000],
     ["2049", "65536", "-70000"]),
    ("int16 into float16", "int16", "float16", [32767, -32768, -32767], ["32767", "-32767"]),
    ("int16 into float32", "int16", "float32", [32767, -32768], []),
    ("int32 into float64", "int32", "float64", [(1 << 31) - 1, -(1 << 31)], []),
    ("float64 into float32", "float64", "float32", [1e300, -1e300, 0.1, 1e-300, np.inf, -np.inf,
     np.nan, 3.4028235e38], ["1e+300", "-1e+300"]),
    ("float32 into float16", "float32", "float16", [65504, 65536, np.nan, np.inf], ["65536.0"]),
    ("float64 of NaN only", "float64", "float32", [np.nan, np.nan], []),
    # Rounds down to the largest float32.
    ("a little too large", "float64", "float32", [3.4028235e38, np.nan], []),
    ("int64 into uint64", "int64", "uint64", [(1 << 63) - 1, -1], ["-1"]),
    ("uint64 into int64", "uint64", "int64", [(1 << 63) - 1, 1 << 63], ["9223372036854775808"]),
]  # fmt: skip


@pytest.mark.parametrize("source, target, values, lost", [v[1:] for v in LOST],
                         ids=[v[0] for v in LOST])  # fmt: skip
def test_values_that_would_come_out_as_others_are_rejected(source, target, values, lost):
    array = pa.array(np.array(values, source))
    found = bad_rows(array, spec(target))
    assert list(found.values()) == [f"{value} does not fit {target}" for value in lost]
    good = array.filter(pa.array([row not in found for row in range(len(values))]))
    np.testing.assert_allclose(
        to_numpy(good, spec(target)).astype(float), good.to_numpy(), 1e-3, 1e-30
    )


def test_rows_without_values_lose_none():
    array = pa.array([[], []], pa.list_(pa.int64()))
    assert bad_rows(array, spec("float32", 0)) == {}


def test_one_bad_row_in_a_million_is_found_by_halving():
    lengths = np.full(1_000_000, 2)
    lengths[765_432] = 3
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.zeros(offsets[-1], np.int8)))
    assert bad_rows(array, spec("int8", 2)) == {765_432: "list of 3 values, expected 2"}


def test_half_a_million_nulls_are_found_at_once_and_other_reasons_among_them():
    rows = [[1, 2], None] * 250_000
    rows[100] = [1, 2, 3]
    found = bad_rows(pa.array(rows, pa.list_(pa.int8())), spec("int8", 2))
    assert len(found) == 250_001
    assert (found[1], found[100]) == ("null", "list of 3 values, expected 2")


def ragged(dtype, most=None):
    """Rows of different lengths, of `most` values where the model says so."""
    return TensorSpec("x", "x:0", dtype, (None, most), "x/lengths:0")


RAGGED = [
    ("ints", pa.array([[1, 2], [], [3]], pa.list_(pa.int32())), ragged("int64"),
     [[1, 2], [0, 0], [3, 0]]),
    ("floats", pa.array([[1.5], [2.5, 3.5], [9.0]], pa.large_list(pa.float64())), ragged("float32"),
     [[1.5, 0.0], [2.5, 3.5], [9.0, 0.0]]),
    ("strings", pa.array([["a", "bb"], ["c"], []]), ragged("string"),
     [[b"a", b"bb"], [b"c", b""], [b"", b""]]),
    ("bytes", pa.array([[b"a"], [b"b"], [b"\0"]]), ragged("string"), [[b"a"], [b"b"], [b"\0"]]),
    ("lists of one length", pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.int8(), 2)),
     ragged("int32"), [[1, 2], [3, 4], [5, 6]]),
    ("as many as the model takes", pa.array([[True], [False, True], []]), ragged("bool", 2),
     [[True, False], [False, True], [False, False]]),
    ("nothing at all", pa.array([[], [], []], pa.list_(pa.int64())), ragged("int64"), [[], [], []]),
]  # fmt: skip


@pytest.mark.parametrize(
    "array, spec, expected", [r[1:] for r in RAGGED], ids=[r[0] for r in RAGGED]
)
def test_lists_of_different_lengths(array, spec, expected):
    assert type_problem(array.type, spec) is None
    assert bad_rows(array, spec) == {}
    found = to_rows(array, spec)
    assert (found.values.dtype, found.padded().tolist()) == (spec.numpy_dtype, expected)
    piece = array.slice(1, 2)
    assert bad_rows(piece, spec) == {}
    width = max(len(row) for row in piece.to_pylist())
    assert to_rows(piece, spec).padded().tolist() == [row[:width] for row in expected[1:]]


@pytest.mark.parametrize("column, spec, words", [
    (pa.int64(), ragged("int64"), "expected a list of values"),
    (pa.list_(pa.list_(pa.int64())), ragged("int64"), "expected a list of values"),
    (pa.list_(pa.string()), ragged("int64"), "expected numbers"),
    (pa.binary(), ragged("int64"), "expected numbers"),
    (pa.list_(pa.float64()), ragged("int64"), "without losing values"),
])  # fmt: skip
def test_a_type_that_never_fits_rows_of_different_lengths(column, spec, words):
    assert words in type_problem(column, spec)


def test_lists_of_different_lengths_that_cannot_be_fed():
    rows = [[1, 2], None, [3, None], [1, 2, 3], [1 << 40], []]
    assert bad_rows(pa.array(rows, pa.list_(pa.int64())), ragged("int32", 2)) == {
        1: "null",
        2: "null inside the list",
        3: "list of 3 values, expected at most 2",
        4: "1099511627776 does not fit int32",
    }
