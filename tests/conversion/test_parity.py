"""The comparison with a reference."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import InputError, ParityError
from batchinfer.signature import Signature, TensorSpec
from conversion.parity import OutputParity, Tolerance, compare, require
from conversion.reference import Reference, check_inputs, read_reference, score_all

NAN, INF = float("nan"), float("inf")


def one(found, expected, atol=0.0, rtol=0.0):
    """The comparison of a single output."""
    found, expected = {"y": np.array(found)}, {"y": np.array(expected)}
    return compare(found, expected, Tolerance(atol, rtol)).outputs[0]


def test_a_difference_is_measured_and_its_row_named():
    assert one([[1.0, 2.0], [4.0, 3.0]], [[1.0, 2.0], [2.0, 3.0]]) == OutputParity(
        "y", False, rows=2, max_absdiff=2.0, max_reldiff=1.0, worst_row=1, values_outside=1,
        argmax_agreement=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("atol, rtol, passed", [(2.0, 0, True), (1.9, 0, False), (0, 1.0, True)])
def test_max_absdiff_is_the_smallest_atol_that_passes(atol, rtol, passed):
    assert one([4.0], [2.0], atol, rtol).passed is passed


@pytest.mark.parametrize(
    "found, expected, passed, mismatches",
    [
        ([NAN], [NAN], True, 0),
        ([NAN], [1.0], False, 1),
        ([1.0], [NAN], False, 1),
        ([INF], [INF], True, 0),
        ([INF], [-INF], False, 0),
        ([1.0], [INF], False, 0),  # an infinite reference allows no infinite distance
    ],
)
def test_nan_and_infinity_only_agree_with_themselves(found, expected, passed, mismatches):
    result = one(found, expected, atol=1e6, rtol=1.0)
    assert (result.passed, result.nan_mismatches) == (passed, mismatches)


@pytest.mark.parametrize(
    "found, expected, problem",
    [
        ({"y": [1.0]}, {"y": [1.0], "z": [1.0]}, "the bundle does not give it"),
        ({"y": [1.0], "z": [1.0]}, {"y": [1.0]}, "the reference does not have it"),
        ({"z": [1.0, 2.0]}, {"z": [1.0]}, "expected shape [1], found [2]"),
    ],
)
def test_an_output_that_cannot_be_compared_fails(found, expected, problem):
    report = compare(found, expected, Tolerance(9.0))
    assert not report.passed
    assert problem in report.outputs[-1].problem


def test_strings_and_booleans_have_to_be_equal():
    assert one([b"a", b"b"], ["a", "b"]).passed
    assert one([True], [False], atol=2.0) == OutputParity(
        "y", False, rows=1, worst_row=0, values_outside=1
    )


def test_a_failed_report_is_an_error_with_the_table():
    report = compare({"y": [1.0]}, {"y": [2.0]}, Tolerance(0.5, 0.0))
    with pytest.raises(ParityError) as error:
        require(report, "out")
    assert "within atol 0.5 and rtol 0" in str(error.value)
    assert "y                        FAILED           1         0.5       0  -" in str(error.value)
    require(compare({"y": [1.0]}, {"y": [1.25]}, Tolerance(0.5)), "out")


@pytest.mark.parametrize("atol", [-1.0, NAN, INF])
def test_a_tolerance_is_a_number_that_excludes_something(atol):
    with pytest.raises(InputError, match="0 or more and finite"):
        Tolerance(atol)


def test_every_row_is_scored_in_batches_of_the_scorers_size():
    class AddsOne:
        batch_rows = 2

        def score(self, feeds):
            assert len(feeds["x"]) <= 2
            return {"y": feeds["x"] + 1}

    assert score_all(AddsOne(), {"x": np.arange(5)})["y"].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x": np.zeros(1)}, "found x"),
        ({"inputs/x": np.zeros(1)}, "expected the keys inputs/<name> and outputs/<name>"),
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
    reference = Reference({"a": np.zeros((4, 3)), "b": np.zeros(4)}, {})
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
        check_inputs(Reference({"x": array}, {"y": np.zeros(2)}), signature)


def test_reference_inputs_of_another_dtype_with_the_same_values_are_taken():
    spec = TensorSpec("x", "x:0", "uint8", (None, 3))
    signature = Signature((spec,), (TensorSpec("y", "y:0", "float32", (None,)),))
    array = np.array([[1.0, 2.0, 255.0]])
    found = check_inputs(Reference({"x": array}, {"y": np.zeros(1)}), signature)
    assert (found["x"].dtype, found["x"].tolist()) == (np.uint8, [[1, 2, 255]])
