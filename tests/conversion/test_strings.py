"""Strings in an .npz: what numpy drops at their ends is kept."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import InputError
from conversion.proof.reference_file import read_reference
from conversion.proof.strings import with_sizes, without_sizes

TEXTS = np.array([[b"ab\0\0", b""], [b"c", b"\0"]], object)


def test_strings_that_end_in_nul_bytes_come_back_whole(tmp_path):
    path = str(tmp_path / "r.npz")
    np.savez(path, **with_sizes({"inputs/x": TEXTS, "outputs/y": np.arange(2)}))
    found = read_reference(path)
    assert found.inputs["x"].tolist() == TEXTS.tolist()
    assert found.outputs["y"].tolist() == [0, 1]


def test_sizes_are_only_written_where_something_would_be_lost():
    assert sorted(with_sizes({"inputs/x": np.array([b"a", b"bc"], object)})) == ["inputs/x"]
    assert sorted(with_sizes({"inputs/x": TEXTS})) == ["inputs/x", "sizes/inputs/x"]


@pytest.mark.parametrize(
    "sizes, message",
    [
        (
            {"sizes/inputs/z": [1, 1]},
            "sizes/inputs/z: expected one size for each string of inputs/z",
        ),
        ({"sizes/inputs/x": [1]}, "sizes/inputs/x: expected one size for each string"),
        ({"sizes/inputs/x": [2, 1]}, "a size is smaller than its string of inputs/x"),
    ],
)
def test_wrong_sizes_are_refused(sizes, message):
    arrays = {"inputs/x": np.array([b"ab", b"cd"])}
    arrays.update({key: np.array(value) for key, value in sizes.items()})
    with pytest.raises(InputError) as error:
        without_sizes(arrays)
    assert message in str(error.value)
