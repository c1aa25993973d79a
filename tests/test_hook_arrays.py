"""What a hook returned against dtype and shape: everything wrong is said at once."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import ShardError
from batchinfer.hook_arrays import checked
from batchinfer.hooks import Hook
from batchinfer.postprocess import TextSpec
from batchinfer.signature import TensorSpec

HOOK = Hook("--preprocess", "m:f", "", "")
IMAGE = TensorSpec("image", "image:0", "uint8", (None, 2, None))
TEXT = TextSpec("text", "", "string", (None,))
IDS = TensorSpec("ids", "ids:0", "int32", (None, 3), lengths="lengths:0")


def words(found, *specs, num_rows=2):
    with pytest.raises(ShardError) as error:
        checked(HOOK, found, specs, num_rows)
    start = f"--preprocess m:f returned for {num_rows} rows: "
    assert str(error.value).startswith(start)
    return str(error.value)[len(start) :]


def test_arrays_that_fit_are_passed_as_they_are():
    image = np.zeros((2, 2, 5), np.uint8)
    assert checked(HOOK, {"image": image}, [IMAGE], 2)["image"] is image


@pytest.mark.parametrize("dtype", [object, "S2", "U2"])
def test_texts_may_be_of_any_kind(dtype):
    found = checked(HOOK, {"text": np.array(["a", "bb"], dtype)}, [TEXT], 2)["text"]
    assert found.dtype == object
    assert [one.decode() if isinstance(one, bytes) else one for one in found] == ["a", "bb"]


def test_rows_of_different_lengths_are_values_and_lengths():
    pair = (np.array([1, 2, 3], np.int32), np.array([1, 2], np.int64))
    found = checked(HOOK, {"ids": pair}, [IDS], 2)["ids"]
    assert (found[:1].own_values.tolist(), found[1:].own_values.tolist()) == ([1], [2, 3])


WRONG = [
    (IMAGE, np.zeros((2, 2, 5)), "uint8[2, 2, ?], found float64[2, 2, 5]"),
    (IMAGE, np.zeros((2, 3, 5), np.uint8), "uint8[2, 2, ?], found uint8[2, 3, 5]"),
    (IMAGE, np.zeros((1, 2, 5), np.uint8), "uint8[2, 2, ?], found uint8[1, 2, 5]"),
    (IMAGE, np.zeros((2, 2), np.uint8), "uint8[2, 2, ?], found uint8[2, 2]"),
    (IMAGE, [[[1], [2]]], "uint8[2, 2, ?], found a list"),
    (TEXT, np.array([1, 2]), "text[2], found int64[2]"),
    (TEXT, np.array(["a", float("nan")], object), "text[2], found nan at [1]"),
    (IDS, np.zeros((2, 3), np.int32), "(values: int32[sum of lengths], lengths: int64[2], each at "
     "most 3), found int32[2, 3]"),
    (IDS, (np.zeros(3), np.array([1, 2])), "(values: int32[sum of lengths], lengths: int64[2], "
     "each at most 3), found (float64[3], int64[2])"),
    (IDS, (np.zeros(3, np.int32), np.array([1, 1])), "(values: int32[sum of lengths], lengths: "
     "int64[2], each at most 3), found 3 values and lengths with the sum 2"),
    (IDS, (np.zeros(4, np.int32), np.array([0, 4])), "(values: int32[sum of lengths], lengths: "
     "int64[2], each at most 3), found a length 4"),
]  # fmt: skip


@pytest.mark.parametrize("spec, value, expected", WRONG, ids=[w[2] for w in WRONG])
def test_another_dtype_or_shape_is_told(spec, value, expected):
    assert words({spec.name: value}, spec) == f"'{spec.name}': expected {expected}"


def test_everything_wrong_is_told_at_once():
    found = words({"image": np.zeros(1), "other": 1}, IMAGE, TEXT)
    assert found == (
        "unknown 'other', expected image, text; 'image': expected uint8[2, 2, ?], found "
        "float64[1]; no 'text', expected text[2]"
    )


def test_no_dict_is_told():
    with pytest.raises(ShardError, match="returned a list; expected a dict of arrays by name"):
        checked(HOOK, [1], [IMAGE], 2)
