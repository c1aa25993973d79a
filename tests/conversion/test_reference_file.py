"""The user's .npz as a reference."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import InputError
from batchinfer.signature import Signature, TensorSpec
from conversion.proof.reference_file import Arrays, check_inputs, read_reference


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": np.zeros(1)}, "found x"),
        ({"outputs/y": np.zeros(1)}, "expected the keys inputs/<name> and outputs/<name>"),
        ({"inputs/x": np.array([None]), "outputs/y": np.zeros(1)}, "cannot read --reference"),
    ],
)
def test_a_file_that_is_no_reference_is_refused(tmp_path, arrays, message):
    np.savez(str(tmp_path / "r.npz"), **arrays)
    with pytest.raises(InputError) as error:
        read_reference(str(tmp_path / "r.npz"))
    assert message in str(error.value)


def test_inputs_that_do_not_fit_the_signature_are_listed():
    signature = Signature(
        (
            TensorSpec("a", "a:0", "float32", (None, 2)),
            TensorSpec("b", "b:0", "string", (None,)),
            TensorSpec("c", "c:0", "int64", (None,)),
        ),
        (TensorSpec("y", "y:0", "float32", (None,)),),
    )
    reference = Arrays({"a": np.zeros((4, 3)), "b": np.zeros(4)}, {})
    with pytest.raises(InputError) as error:
        check_inputs(reference, signature)
    assert str(error.value) == (
        "the reference does not fit the model:\n"
        "  expected a: float32[?, 2]; found float64[4, 3]\n"
        "  expected b: string[?]; found float64[4]\n"
        "  expected inputs/c; found a, b"
    )


WRONG_INPUTS = [
    ("other whole numbers", np.full((2, 3), 300, np.int64)),
    ("fractions", np.full((2, 3), 0.5, np.float32)),
    ("not a number", np.full((2, 3), np.nan, np.float64)),
]


@pytest.mark.parametrize("array", [w[1] for w in WRONG_INPUTS], ids=[w[0] for w in WRONG_INPUTS])
def test_reference_inputs_that_the_dtype_cannot_hold_prove_nothing(array):
    spec = TensorSpec("x", "x:0", "uint8", (None, 3))
    signature = Signature((spec,), (TensorSpec("y", "y:0", "float32", (None,)),))
    with pytest.raises(InputError, match=r"expected x: uint8\[\?, 3\]; found"):
        check_inputs(Arrays({"x": array}, {"y": np.zeros(2)}), signature)


def test_reference_inputs_of_another_dtype_with_the_same_values_are_taken():
    spec = TensorSpec("x", "x:0", "uint8", (None, 3))
    signature = Signature((spec,), (TensorSpec("y", "y:0", "float32", (None,)),))
    array = np.array([[1.0, 2.0, 255.0]])
    found = check_inputs(Arrays({"x": array}, {"y": np.zeros(1)}), signature)
    assert (found["x"].dtype, found["x"].tolist()) == (np.uint8, [[1, 2, 255]])
