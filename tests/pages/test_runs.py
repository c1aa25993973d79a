"""Hybrid runs: bytes written out by hand, and every width against a decoder of one line."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.pages.runs import IrregularError, indices, levels_repeat, unpack


def run_of(value, times, width):
    head = times << 1
    varint = bytes([head]) if head < 128 else bytes([head & 127 | 128, head >> 7])
    return varint + value.to_bytes((width + 7) // 8, "little")


def packed(values, width):
    bits = "".join(format(value, f"0{width}b")[::-1] for value in values)
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    return bytes([len(values) // 8 << 1 | 1]) + data


def array(data):
    return np.frombuffer(data, np.uint8)


def rows_of(width, *lengths):
    """Repetition levels of rows of these lengths."""
    return [int(place > 0) for length in lengths for place in range(length)]


FOUR = np.array([0, 1, 1, 1], np.uint8)


def test_two_rows_of_four_fit_one_packed_group():
    assert levels_repeat(array(packed([0, 1, 1, 1, 0, 1, 1, 1], 1)), 1, FOUR, 0, 8)


def test_a_row_of_three_among_rows_of_four_is_found():
    levels = rows_of(1, 4, 3, 5, 4)
    assert not levels_repeat(array(packed(levels, 1)), 1, FOUR, 0, 16)


def test_rows_may_begin_within_a_page():
    levels = [1, 1] + rows_of(1, 4, 2)
    assert levels_repeat(array(packed(levels, 1)), 1, FOUR, 2, 8)
    assert not levels_repeat(array(packed(levels, 1)), 1, FOUR, 0, 8)


@pytest.mark.parametrize("changed", [0, 1, 499, 998])
def test_one_row_that_differs_among_a_thousand_is_found_wherever_it_is(changed):
    row = packed([0] + [1] * 7, 1) + run_of(1, 56, 1)
    other = packed([0] + [1] * 7, 1) + run_of(1, 55, 1)
    period = np.array([0] + [1] * 63, np.uint8)
    assert levels_repeat(array(row * 1000), 1, period, 0, 64_000)
    broken = row * changed + other + row * (999 - changed)
    assert not levels_repeat(array(broken), 1, period, 0, 63_999)


def test_a_level_that_is_not_the_highest_is_a_null():
    defined = np.array([3], np.uint8)
    assert levels_repeat(array(run_of(3, 100, 2)), 2, defined, 0, 100)
    assert not levels_repeat(array(run_of(3, 99, 2) + run_of(2, 1, 2)), 2, defined, 0, 100)


def test_values_behind_the_last_level_are_padding():
    assert levels_repeat(array(packed([0, 1, 1, 1, 0, 1, 1, 0], 1)), 1, FOUR, 0, 7)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x03", run_of(1, 3, 1)])
def test_runs_that_end_too_early_are_errors(data):
    with pytest.raises((IndexError, ValueError)):
        levels_repeat(array(data), 1, np.ones(1, np.uint8), 0, 8)


@pytest.mark.parametrize("width", range(1, 26))
def test_each_width_is_unpacked(width):
    rng = np.random.RandomState(width)
    values = rng.randint(0, 1 << width, 504).tolist()
    assert values == unpack(array(packed(values, width)[1:]), width).tolist()


def test_indices_of_equal_and_of_mixed_runs():
    first, second = list(range(8)) * 63, [7] * 20
    data = packed(first, 3) * 3 + run_of(7, 20, 3) + packed(first[:8], 3)
    assert first * 3 + second + first[:5] == indices(array(data), 3, 1512 + 20 + 5).tolist()


def test_indices_of_no_width_are_zero():
    assert indices(array(b""), 0, 3).tolist() == [0, 0, 0]


def test_too_many_runs_are_left_to_pyarrow():
    data = array((run_of(1, 8, 3) + run_of(2, 8, 3)) * 100)
    with pytest.raises(IrregularError):
        indices(data, 3, 1600)


def test_indices_of_more_than_25_bits_are_left_to_pyarrow():
    with pytest.raises(IrregularError):
        indices(array(b"\x03" + bytes(26)), 26, 8)
