"""Named tensors: what is refused, and what comes back from JSON."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import BundleError
from batchinfer.signature import DTYPES, Signature, TensorSpec


def spec(name="x", dtype="float32", shape=(None, 4)):
    return TensorSpec(name, f"{name}:0", dtype, shape)


def test_a_spec_reads_as_a_person_would_write_it():
    assert str(spec(shape=(None, 224, None))) == "x: float32[?, 224, ?]"
    assert spec(shape=(8, 224, None)).row_shape == (224, None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_its_numpy_dtype(dtype):
    assert spec(dtype=dtype).numpy_dtype == np.dtype("object" if dtype == "string" else dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "complex64", "float", "resource", ""])
def test_other_dtypes_are_refused_with_those_that_are_not(dtype):
    with pytest.raises(BundleError, match=f"'x' has dtype {dtype}; expected one of bool, int8"):
        spec(dtype=dtype)


def test_a_scalar_is_refused():
    with pytest.raises(BundleError, match=r"'x' \(x:0\) is a scalar; expected a leading batch"):
        spec(shape=())


SIGNATURES = [
    ("no inputs", (), (spec("y"),), r"needs distinct inputs; found \[\]"),
    ("no outputs", (spec(),), (), r"needs distinct outputs; found \[\]"),
    ("a name twice", (spec(), spec()), (spec("y"),), r"distinct inputs; found \['x', 'x'\]"),
    ("two batch sizes", (spec(shape=(8,)),), (spec("y", shape=(4,)),), "different batch sizes"),
]


@pytest.mark.parametrize(
    "inputs, outputs, words", [s[1:] for s in SIGNATURES], ids=[s[0] for s in SIGNATURES]
)
def test_a_signature_that_makes_no_sense_is_refused(inputs, outputs, words):
    with pytest.raises(BundleError, match=words):
        Signature(inputs, outputs)


def test_an_input_and_an_output_may_have_one_name():
    assert Signature((spec("x"),), (spec("x"),)).fixed_batch_rows is None


@pytest.mark.parametrize(
    "first, second, expected", [(None, None, None), (8, None, 8), (None, 8, 8), (8, 8, 8)]
)
def test_one_fixed_tensor_fixes_the_batch(first, second, expected):
    signature = Signature((spec(shape=(first, 4)),), (spec("y", shape=(second,)),))
    assert signature.fixed_batch_rows == expected


def test_a_signature_comes_back_from_json_sorted_by_name():
    signature = Signature(
        (spec("b", "string", (None,)), spec("a", shape=(None, None, 3))), (spec("y"), spec("c"))
    )
    fields = signature.to_json()
    assert fields["inputs"]["a"] == {"tensor": "a:0", "dtype": "float32", "shape": [None, None, 3]}
    again = Signature.from_json(fields)
    assert again == Signature(signature.inputs[::-1], signature.outputs[::-1])
    assert Signature.from_json(again.to_json()) == again


def test_an_input_with_rows_of_different_lengths_keeps_the_tensor_of_its_lengths():
    ids = TensorSpec("ids", "ids:0", "int64", (None, None), "ids/lengths:0")
    assert (str(ids), ids.fed) == ("ids: ragged int64[?, ?]", ("ids:0", "ids/lengths:0"))
    signature = Signature((ids,), (TensorSpec("y", "y:0", "float32", (None,)),))
    assert Signature.from_json(signature.to_json()) == signature
    assert signature.to_json()["outputs"]["y"] == {
        "tensor": "y:0", "dtype": "float32", "shape": [None],
    }  # fmt: skip


def test_rows_of_different_lengths_have_one_dimension():
    with pytest.raises(BundleError, match="expected 2, the batch and the values of a row"):
        TensorSpec("ids", "ids:0", "int64", (None, None, 3), "ids/lengths:0")
