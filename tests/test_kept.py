"""One type for a kept column of many files, and the cast to it."""

from __future__ import annotations

import itertools

import pytest

from batchinfer.arrow import pa
from batchinfer.kept import cast_column, common_type, unify


def stamp(unit, zone=None):
    return pa.timestamp(unit, zone)


COMMON = [
    (pa.int8(), pa.int64(), pa.int64()),
    (pa.uint8(), pa.uint16(), pa.uint16()),
    (pa.int8(), pa.uint8(), pa.int16()),
    (pa.uint32(), pa.int8(), pa.int64()),
    (pa.uint64(), pa.int8(), None),
    (pa.null(), pa.date32(), pa.date32()),
    (pa.float32(), pa.float64(), pa.float64()),
    (pa.float32(), pa.int8(), None),  # a count is no measurement
    (pa.string(), pa.large_string(), pa.large_string()),
    (pa.binary(), pa.large_binary(), pa.large_binary()),
    (pa.string(), pa.binary(), None),
    (stamp("ms", "UTC"), stamp("ns", "UTC"), stamp("ns", "UTC")),
    (stamp("ms"), stamp("us"), stamp("us")),
    (stamp("ms"), stamp("ms", "UTC"), None),
    (pa.date32(), stamp("ms"), None),
    (pa.bool_(), pa.int8(), None),
    # pandas writes an all-empty column of lists as list<null>.
    (pa.list_(pa.null()), pa.list_(pa.string()), pa.list_(pa.string())),
    (pa.list_(pa.int8()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
    (pa.list_(pa.int8()), pa.list_(pa.string()), None),
    (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), None),
    (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int16())]), None),
]


@pytest.mark.parametrize("one, other, expected", COMMON, ids=str)
def test_the_narrowest_type_that_holds_both(one, other, expected):
    assert common_type(one, other) == expected
    assert common_type(other, one) == expected
    assert common_type(one, one) == one


@pytest.mark.parametrize(
    "kinds, expected",
    [
        ([pa.null(), pa.int8(), pa.uint8(), pa.uint16()], pa.int32()),
        ([pa.dictionary(pa.int8(), pa.string()), pa.null(), pa.large_string()], pa.large_string()),
        ([pa.dictionary(pa.int8(), pa.string()), pa.string()], pa.string()),
        ([pa.null()], pa.null()),
    ],
    ids=str,
)
def test_the_order_of_the_files_does_not_matter(kinds, expected):
    for order in itertools.permutations(kinds):
        files = {pa.schema([("k", kind)]): ["a"] for kind in order}
        assert unify(["k"], files) == pa.schema([("k", expected)])


VALUES = [
    (pa.array([None, None], pa.null()), stamp("us"), [None, None]),
    (pa.array([1, None], pa.int8()), pa.int64(), [1, None]),
    (pa.array(["a", None]), pa.large_string(), ["a", None]),
    (pa.array(["a", None]).dictionary_encode(), pa.large_string(), ["a", None]),
    (pa.array([[], None], pa.list_(pa.null())), pa.list_(pa.string()), [[], None]),
    (pa.array([[1], None], pa.list_(pa.int8())), pa.large_list(pa.int64()), [[1], None]),
    (pa.array([{"a": 1}, None]), pa.struct([("a", pa.int64())]), [{"a": 1}, None]),
    (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int8())), pa.map_(pa.string(), pa.int8()),
     [[("k", 1)]]),
]  # fmt: skip


@pytest.mark.parametrize("array, kind, expected", VALUES, ids=str)
def test_values_stay_as_they_are(array, kind, expected):
    batch = pa.RecordBatch.from_arrays([array], ["k"])
    found = cast_column(batch, pa.field("k", kind))
    assert (found.type, found.to_pylist()) == (kind, expected)


def test_a_value_that_the_finer_unit_cannot_hold_is_an_error():
    batch = pa.RecordBatch.from_arrays([pa.array([1 << 40], stamp("s"))], ["k"])
    with pytest.raises(pa.ArrowInvalid, match="would result in out of bounds timestamp"):
        cast_column(batch, pa.field("k", stamp("ns")))
