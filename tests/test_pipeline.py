"""The lane of a device: order, bounds, turns, and errors that come out."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from batchinfer.pipeline import CONSUME_BEHIND, READ_AHEAD, Lane


@pytest.fixture
def lane():
    made = Lane(2)
    yield made
    made.close()


def until(condition):
    """Wait for it, ten seconds at most."""
    end = time.monotonic() + 10
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def numbers(read, count=100):
    for n in range(count):
        read.append(n)
        yield n


def test_results_come_in_order():
    assert list(Lane(4).map(lambda n: n * n, range(1000))) == [n * n for n in range(1000)]


def test_results_keep_their_order_when_later_items_are_faster(lane):
    def slow_first(n):
        time.sleep(0.05 if n == 0 else 0)
        return n

    assert list(lane.map(slow_first, range(8))) == list(range(8))


def test_no_item_is_no_result(lane):
    assert list(lane.map(str, [])) == []


def test_as_many_items_are_worked_on_at_once_as_there_are_threads(lane):
    both = threading.Barrier(2)
    assert list(lane.map(lambda n: both.wait(10) >= 0, range(4))) == [True] * 4


def test_more_threads_than_results_may_wait_are_all_at_work():
    lane = Lane(CONSUME_BEHIND + 10)
    everyone = threading.Barrier(lane.workers)
    items = range(lane.workers)
    assert list(lane.map(lambda n: everyone.wait(10) >= 0, items)) == [True] * lane.workers
    lane.close()


def test_no_more_is_read_than_fits_while_the_threads_are_busy(lane):
    go, read = threading.Event(), []

    def work(n):
        go.wait(10)
        return n

    results = lane.map(work, numbers(read))
    waiting = threading.Thread(target=lambda: list(results))
    waiting.start()
    until(lambda: len(read) == 2 + READ_AHEAD + 1)  # and one in the reader's hand
    time.sleep(0.05)
    assert len(read) == 2 + READ_AHEAD + 1
    go.set()
    waiting.join()


def test_no_more_is_worked_on_than_fits_while_the_consumer_is_busy(lane):
    done = []
    results = lane.map(done.append, range(100))
    next(results)
    until(lambda: len(done) == lane.workers + CONSUME_BEHIND + 1)
    time.sleep(0.05)
    assert len(done) == lane.workers + CONSUME_BEHIND + 1
    results.close()


def test_an_item_is_let_go_once_it_was_worked_on(lane):
    class Item:
        pass

    alive = []

    def items():
        for _ in range(50):
            item = Item()
            alive.append(weakref.ref(item))
            yield item
            del item

    most = 0
    for _ in lane.map(lambda item: time.sleep(0.001), items()):
        gc.collect()
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 2 + READ_AHEAD + 2  # one in the reader's hand, one that a thread is leaving


def test_an_error_of_the_reader_comes_after_the_items_before_it(lane):
    def items():
        yield 1
        yield 2
        raise ValueError("page 3 is torn")

    found = []
    with pytest.raises(ValueError, match="page 3 is torn"):
        for item in lane.map(lambda n: n, items()):
            found.append(item)
    assert found == [1, 2]


def test_an_error_of_the_work_comes_in_its_place(lane):
    def work(n):
        if n == 3:
            raise ValueError("poison")
        return n

    found = []
    with pytest.raises(ValueError, match="poison"):
        for result in lane.map(work, range(10)):
            found.append(result)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("leave", ["break", "raise"])
def test_the_reader_ends_and_closes_its_source_when_the_consumer_leaves(lane, leave):
    closed = []

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    results = lane.map(str, items())
    try:
        for _ in results:
            if leave == "raise":
                raise KeyError("consumer")
            break
    except KeyError:
        assert leave == "raise"
    results.close()
    assert closed == ["read"]
    assert list(lane.map(str, [5])) == ["5"]  # the turn was given away


def test_the_next_shard_has_the_turn_once_the_last_batch_is_handed_over(lane):
    go, order = threading.Event(), []

    def work(item):
        go.wait(10)
        return item

    first = lane.map(work, ["a"], lambda: order.append("first"))
    ahead = threading.Thread(target=lambda: order.append(next(first)))
    ahead.start()
    until(lambda: order == ["first"])
    second = lane.map(str, ["b"], lambda: order.append("second"))
    behind = threading.Thread(target=lambda: order.append(next(second)))
    behind.start()
    until(lambda: order[:2] == ["first", "second"])  # though "a" is still at work
    go.set()
    ahead.join()
    behind.join()
    assert sorted(order[2:]) == ["a", "b"]


def test_a_shard_without_the_turn_reads_a_little_ahead_and_works_on_nothing(lane):
    read, worked, turns = [], [], []
    lane.turn.acquire()
    results = lane.map(worked.append, numbers(read), lambda: turns.append("now"))
    waiting = threading.Thread(target=lambda: list(results))
    waiting.start()
    until(lambda: len(read) == READ_AHEAD)
    time.sleep(0.05)
    assert (len(read), worked, turns) == (READ_AHEAD, [], [])
    lane.turn.release()
    waiting.join()
    assert (len(worked), turns) == (100, ["now"])


def test_a_shard_that_fails_gives_its_turn_away(lane):
    def items():
        yield 1
        raise ValueError("torn")

    with pytest.raises(ValueError, match="torn"):
        list(lane.map(str, items()))
    with pytest.raises(ZeroDivisionError):
        list(lane.map(lambda n: 1 // n, [0, 0, 0, 0]))
    assert list(lane.map(str, [7])) == ["7"]


def test_it_is_told_how_long_the_threads_waited():
    waited, lane = [], Lane(1)

    def items():
        time.sleep(0.1)
        yield 1

    list(lane.map(str, items(), on_wait=waited.append))
    assert len(waited) == 1
    assert waited[0] >= 0.09


def test_what_goes_wrong_while_the_source_is_closed_is_raised(lane):
    class Source:
        def __iter__(self):
            return iter([1, 2])

        def close(self):
            raise OSError("it would not close")

    results = lane.map(str, Source())
    assert [next(results), next(results)] == ["1", "2"]
    with pytest.raises(OSError, match="it would not close"):
        next(results)
