"""What is shown while a run lasts, on a clock of the test's own."""

from __future__ import annotations

import io
import logging

import pytest

from batchinfer.progress import ProgressDisplay, progress_line


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def shown(caplog):
    """The lines that were logged so far."""
    caplog.set_level(logging.INFO, "batchinfer")
    return lambda: [record.getMessage() for record in caplog.records]


def show(display, clock, steps):
    """Steps of (seconds since the start, rows)."""
    for second, rows in steps:
        clock.now = Clock.now + second
        display.show(rows, "2 of 2 actors ready")


def test_a_line_every_ten_seconds_and_no_oftener(shown):
    clock = Clock()
    display = ProgressDisplay(1000, 0, io.StringIO(), clock)
    show(display, clock, [(second / 2, second) for second in range(71)])
    display.close()
    assert [line.split(" of ")[0] for line in shown()] == ["20", "40", "60"]


def test_a_line_tells_rows_share_speed_and_time_left(shown):
    clock = Clock()
    display = ProgressDisplay(1000, 0, io.StringIO(), clock)
    show(display, clock, [(0, 0), (5, 100), (10, 200)])
    assert shown() == [
        "200 of 1,000 rows (20 %), 20 rows/s, 40s left, 2 of 2 actors ready",
    ]


def test_rows_of_earlier_runs_count_as_done_but_not_as_speed(shown):
    clock = Clock()
    display = ProgressDisplay(1000, 500, io.StringIO(), clock)
    show(display, clock, [(0, 500), (10, 500), (15, 510), (20, 560), (30, 660)])
    assert shown() == [
        "500 of 1,000 rows (50 %), 0 rows/s, time left unknown, 2 of 2 actors ready",
        "560 of 1,000 rows (56 %), 10 rows/s, 44s left, 2 of 2 actors ready",
        "660 of 1,000 rows (66 %), 10 rows/s, 34s left, 2 of 2 actors ready",
    ]


def test_the_time_until_the_first_row_is_not_speed(shown):
    """A node that an autoscaler brings takes minutes; the estimate must not start with them."""
    clock = Clock()
    display = ProgressDisplay(1000, 0, io.StringIO(), clock)
    show(display, clock, [(0, 0), (595, 0), (600, 10), (605, 60)])
    assert shown()[-1] == "60 of 1,000 rows (6 %), 10 rows/s, 1m 34s left, 2 of 2 actors ready"


def test_rows_that_are_scored_again_never_make_a_negative_speed(shown):
    clock = Clock()
    display = ProgressDisplay(1000, 0, io.StringIO(), clock)
    show(display, clock, [(0, 0), (1, 100), (20, 50)])
    assert shown() == ["50 of 1,000 rows (5 %), 0 rows/s, time left unknown, 2 of 2 actors ready"]


def test_a_terminal_gets_a_bar_that_starts_at_what_is_done(shown):
    terminal, clock = Terminal(), Clock()
    display = ProgressDisplay(1000, 500, terminal, clock)
    show(display, clock, [(0, 500), (10, 600), (20, 550), (30, 1000)])
    display.close()
    frames = terminal.getvalue().split("\r")
    assert "scoring:  50%" in frames[1]
    assert "500/1.00k" in frames[1]
    assert "1.00k/1.00k" in frames[-1]
    assert "2 of 2 actors ready" in frames[-1]
    assert shown() == []


LINES = [
    ((12345, 0, 0.0), "0 of 12,345 rows (0 %), 0 rows/s, time left unknown"),
    ((100_000, 12_345, 1234.4), "12,345 of 100,000 rows (12 %), 1,234 rows/s, 1m 11s left"),
    ((1000, 999, 1.0), "999 of 1,000 rows (99 %), 1 rows/s, 1s left"),
    ((1000, 1000, 10.0), "1,000 of 1,000 rows (100 %), 10 rows/s, 0s left"),
    ((7300, 0, 1.0), "0 of 7,300 rows (0 %), 1 rows/s, 2h 01m left"),
    ((7199, 0, 2.0), "0 of 7,199 rows (0 %), 2 rows/s, 1h 00m left"),
    ((0, 0, 0.0), "0 of 0 rows (100 %), 0 rows/s, time left unknown"),
]


@pytest.mark.parametrize("given, expected", LINES, ids=[line[1] for line in LINES])
def test_lines(given, expected):
    assert progress_line(*given) == expected
