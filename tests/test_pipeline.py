"""Stages on threads: order, bounds, and errors that come out."""

from __future__ import annotations

import threading
import time

import pytest

from batchinfer.pipeline import Lane, read_ahead


def test_items_come_through_in_order():
    with read_ahead(range(100), 3) as items:
        assert list(Lane(4).map(lambda n: n * n, items)) == [n * n for n in range(100)]


def test_results_keep_their_order_when_later_items_are_faster():
    def slow_first(n):
        time.sleep(0.05 if n == 0 else 0)
        return n

    assert list(Lane(4).map(slow_first, range(8))) == list(range(8))


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

    results = Lane(2).map(work, range(100))
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
        for result in Lane(2).map(work, range(10)):
            found.append(result)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("leave", ["break", "raise"])
def test_the_reader_ends_when_the_consumer_leaves(leave):
    name = f"reader of {leave}"  # other tests' threads may end meanwhile
    try:
        with read_ahead(iter(int, 1), 2, name) as items:  # endless zeros
            assert name in [thread.name for thread in threading.enumerate()]
            next(items)
            if leave == "raise":
                raise KeyError("consumer")
    except KeyError:
        assert leave == "raise"
    assert name not in [thread.name for thread in threading.enumerate()]


def test_the_next_shard_has_the_turn_once_the_last_batch_is_handed_over():
    lane, done, order = Lane(1), threading.Event(), []

    def last(item):
        done.wait(10)
        return item

    first = lane.map(last, ["a"], lambda: order.append("first"))
    second = lane.map(str, ["b"], lambda: order.append("second"))
    waiting = threading.Thread(target=lambda: order.append(next(first)))
    waiting.start()
    behind = threading.Thread(target=lambda: order.append(next(second)))
    behind.start()
    while "second" not in order:  # though "a" is still at work
        time.sleep(0.01)
    assert order == ["first", "second"]
    done.set()
    waiting.join()
    behind.join()
    assert sorted(order[2:]) == ["a", "b"]


def test_a_shard_that_fails_gives_its_turn_away():
    lane = Lane(1)

    def items():
        yield 1
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        list(lane.map(str, items()))
    with pytest.raises(ZeroDivisionError):
        list(lane.map(lambda n: 1 // n, [0, 0, 0, 0]))
    left = lane.map(str, range(9))
    next(left)
    left.close()
    assert list(lane.map(str, [7])) == ["7"]


def test_an_abandoned_source_is_closed_by_the_thread_that_read_it():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with read_ahead(items(), 2, "reading") as found:
        next(found)
    assert closed == ["reading"]
