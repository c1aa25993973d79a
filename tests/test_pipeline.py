"""Stages on threads: order, bounds, and errors that come out."""

from __future__ import annotations

import threading
import time

import pytest

from batchinfer.pipeline import ordered_map, read_ahead


def test_items_come_through_in_order():
    with read_ahead(range(100), 3) as items:
        assert list(ordered_map(lambda n: n * n, items, 4, ahead=6)) == [n * n for n in range(100)]


def test_results_keep_their_order_when_later_items_are_faster():
    def slow_first(n):
        time.sleep(0.05 if n == 0 else 0)
        return n

    assert list(ordered_map(slow_first, range(8), 4, ahead=8)) == list(range(8))


def test_the_reader_never_runs_further_ahead_than_asked():
    read = []

    def items():
        for n in range(100):
            read.append(n)
            yield n

    with read_ahead(items(), 3) as found:
        next(found)
        time.sleep(0.2)
        assert len(read) <= 1 + 3 + 1  # taken, waiting, and one in the reader's hand


def test_the_map_begins_no_more_than_asked():
    begun = []

    def work(n):
        begun.append(n)
        return n

    results = ordered_map(work, range(100), 2, ahead=3)
    next(results)
    time.sleep(0.1)
    assert len(begun) <= 3
    results.close()


def test_an_error_of_the_reader_comes_after_the_items_before_it():
    def items():
        yield 1
        yield 2
        raise ValueError("page 3 is torn")

    found = []
    with read_ahead(items(), 5) as source:
        with pytest.raises(ValueError, match="page 3 is torn"):
            for item in source:
                found.append(item)
    assert found == [1, 2]


def test_an_error_of_the_work_comes_in_its_place():
    def work(n):
        if n == 3:
            raise ValueError("poison")
        return n

    found = []
    with pytest.raises(ValueError, match="poison"):
        for result in ordered_map(work, range(10), 2, ahead=4):
            found.append(result)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("leave", ["break", "raise"])
def test_the_reader_ends_when_the_consumer_leaves(leave):
    before = threading.active_count()
    try:
        with read_ahead(iter(int, 1), 2) as items:  # endless zeros
            next(items)
            if leave == "raise":
                raise KeyError("consumer")
    except KeyError:
        assert leave == "raise"
    assert threading.active_count() == before
