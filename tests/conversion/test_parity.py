"""The comparison with a reference."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import InputError, ParityError
from conversion.proof.comparison import OutputParity
from conversion.proof.parity import compare, require
from conversion.proof.tolerance import TOLERANCES, Tolerance, ordinary, scale_of, tolerance_for

NAN, INF = float("nan"), float("inf")


def one(found, expected, atol=0.0, rtol=0.0):
    """The comparison of a single output."""
    found, expected = {"y": np.array(found)}, {"y": np.array(expected)}
    return compare(found, expected, Tolerance(atol, rtol)).outputs[0]


def test_a_difference_is_measured_and_its_row_named():
    assert one([[1.0, 2.0], [4.0, 3.0]], [[1.0, 2.0], [2.0, 3.0]]) == OutputParity(
        "y", False, rows=2, max_absdiff=2.0, max_reldiff=1.0, mean_absdiff=0.5, worst_row=1,
        values_outside=1, argmax_agreement=0.5,
    )  # fmt: skip


@pytest.mark.parametrize("atol, rtol, passed", [(2.0, 0, True), (1.9, 0, False), (0, 1.0, True)])
def test_max_absdiff_is_the_smallest_atol_that_passes(atol, rtol, passed):
    assert one([4.0], [2.0], atol, rtol).passed is passed


@pytest.mark.parametrize(
    "found, expected, passed, mismatches",
    [
        ([NAN], [NAN], False, 0),
        ([NAN], [1.0], False, 1),
        ([1.0], [NAN], False, 1),
        ([INF], [INF], True, 0),
        ([INF], [-INF], False, 0),
        ([1.0], [INF], False, 0),  # an infinite reference allows no infinite distance
    ],
)
def test_infinity_equals_only_itself_and_nan_nothing(found, expected, passed, mismatches):
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
    assert "within atol 0.5, rtol 0\n" in str(error.value)
    line = "y                        FAILED           1            1         0.5         0"
    assert line in str(error.value)
    require(compare({"y": [1.0]}, {"y": [1.25]}, Tolerance(0.5)), "out")


@pytest.mark.parametrize(
    "found, expected, advised",
    [
        ({"y": [1.0]}, {"y": [2.0]}, True),
        ({"y": [1.0]}, {"y": [1.0], "z": [1.0]}, False),  # z is missing
        ({"y": [1.0, 2.0]}, {"y": [1.0]}, False),
        ({"y": [NAN]}, {"y": [1.0]}, False),
        ({"y": [INF]}, {"y": [1.0]}, False),
        ({"y": [b"a"]}, {"y": [b"b"]}, False),
        ({"y": [1.0], "z": [NAN]}, {"y": [2.0], "z": [1.0]}, False),
        ({"y": [1.0], "z": [NAN]}, {"y": [2.0], "z": [NAN]}, False),  # NaN agrees with nothing
    ],
)
def test_a_wider_tolerance_is_advised_where_it_can_help(found, expected, advised):
    with pytest.raises(ParityError) as error:
        require(compare(found, expected, Tolerance(0.5)), "out")
    assert ("--atol of about 1e-2" in str(error.value)) is advised
    assert "--allow-parity-failure writes the bundle" in str(error.value)


@pytest.mark.parametrize("atol", [-1.0, NAN, INF])
def test_a_tolerance_is_a_number_that_excludes_something(atol):
    with pytest.raises(InputError, match="0 or more and finite"):
        Tolerance(atol)


def test_a_whole_number_is_right_or_wrong_whatever_the_tolerance():
    assert not one([3, 7], [3, 8], atol=9.0).passed
    # As float64 the two are one number.
    assert not one([2**62], [2**62 + 1], atol=9.0).passed


def test_top_5_agreement_is_the_share_of_the_references_five_best_that_were_found():
    expected = np.arange(8.0)[None, :]
    assert one(expected, expected).top_k_agreement == 1.0
    # 7, 6, 5, 4, 3 are the best; here 0 and 1 have taken the places of 7 and 6.
    assert one([[9.0, 8, 2, 3, 4, 5, 1, 0]], expected).top_k_agreement == pytest.approx(0.6)
    assert one([[1.0, 2, 3, 4, 5]], [[1.0, 2, 3, 4, 5]]).top_k_agreement is None


def compared_classes(found_scores, expected_scores, tolerance):
    def outputs(scores):
        return {"classes": np.argmax(scores, axis=1), "scores": np.array(scores)}

    return compare(outputs(found_scores), outputs(expected_scores), tolerance).outputs[0]


def test_a_class_may_differ_where_the_reference_holds_both_within_the_tolerance():
    found, expected = [[0.1, 0.9], [0.49, 0.51]], [[0.1, 0.9], [0.505, 0.495]]
    classes = compared_classes(found, expected, Tolerance(0.02, 0.0))
    assert (classes.passed, classes.ties) == (True, 1)
    assert not compared_classes(found, expected, Tolerance(0.001, 0.0)).passed
    assert not compare({"classes": np.array([1])}, {"classes": np.array([0])}, Tolerance(9)).passed


def test_a_share_of_the_scale_is_allowed_for_small_entries_too():
    assert one([0.5, 100.0], [0.0, 100.0], atol=0.4).passed is False
    allowing = compare(
        {"y": np.array([0.5, 100.0])}, {"y": np.array([0.0, 100.0])}, Tolerance(0, 0, 0.01)
    )
    assert allowing.passed


@pytest.mark.parametrize("mask", [-1e4, -1e9, -3.4e38])
def test_masked_logits_are_no_scale_by_which_others_may_differ(mask):
    expected = np.array([[1.0, 2.0, mask], [0.5, -1.0, mask - 1]])
    wrong = np.array([[2.0, 1.0, mask], [0.5, -1.0, mask - 1]])
    assert not compare({"y": wrong}, {"y": expected}, TOLERANCES["float32"]).passed
    assert not compare({"y": wrong}, {"y": expected}, TOLERANCES["bfloat16"]).passed
    assert compare({"y": expected + 1e-6}, {"y": expected}, TOLERANCES["float32"]).passed


# The last one spans many sizes without a gap: nothing in it is a sentinel.
@pytest.mark.parametrize(
    "values, kept",
    [
        ([1.0, -2.0, -1e9], [1.0, -2.0]),
        ([0.0, 5.0, np.inf, np.nan], [0.0, 5.0]),
        ([1e-12, 0.5], [1e-12, 0.5]),
        ([3e4, 4e4], [3e4, 4e4]),
        ([1.0, 50.0, 1400.0], [1.0, 50.0, 1400.0]),
    ],
)
def test_sentinels_are_huge_and_far_from_the_rest(values, kept):
    assert ordinary(np.array(values)).tolist() == kept


def test_ids_beside_scores_are_no_scale_for_the_scores():
    expected = np.array([[581781.0, 40.0, 60.0, 0.9], [120.0, 30.0, 70.0, 0.1]])
    wrong = expected * [1, 1, 1, 0.5]
    assert not compare({"y": wrong}, {"y": expected}, TOLERANCES["float32"]).passed


def test_the_scale_is_six_medians_or_the_largest_value():
    assert scale_of(np.array([0.0, 0.0, 1.0, -2.0, 3.0])) == 3.0
    assert scale_of(np.array([1.0, 1.0, 1.0, 50.0])) == 6.0
    assert scale_of(np.zeros(3)) == 0.0


@pytest.mark.parametrize("arithmetic", ["float32", "float16", "bfloat16"])
def test_an_output_of_tiny_values_has_to_agree_as_closely(arithmetic):
    expected = np.array([1e-6, -2e-6, 3e-6])
    tolerance = TOLERANCES[arithmetic]
    assert not compare({"y": expected * 0}, {"y": expected}, tolerance).passed
    assert compare({"y": expected * (1 + 1e-6)}, {"y": expected}, tolerance).passed
    assert compare({"y": expected * 0}, {"y": expected}, Tolerance(1e-5)).passed  # as asked


def test_the_coarsest_arithmetic_sets_the_tolerance():
    assert tolerance_for(["float32", "bfloat16"]) == ("bfloat16", TOLERANCES["bfloat16"])
    assert tolerance_for(["float16", "float32"]) == ("float16", TOLERANCES["float16"])
    assert TOLERANCES["float32"] == Tolerance(1e-5, 1e-5, 1e-5, 1e-3)
