from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, List

import pytest

from batchinfer.errors import InputError, StorageError, TransientStorageError
from batchinfer.storage import Retry


@dataclass
class FakeTime:
    """A clock that only sleeping and the operation itself move."""

    now: float = 1000.0
    slept: List[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def retry(self, **limits: float) -> Retry:
        return Retry(sleep=self.sleep, clock=lambda: self.now, **limits)


def failing(times: int, result: str = "done") -> Callable[[], str]:
    """An operation that fails so often before it works."""
    left = [times]

    def operation() -> str:
        if left[0]:
            left[0] -= 1
            raise TransientStorageError("the store is down")
        return result

    return operation


def test_what_works_is_tried_once() -> None:
    time = FakeTime()
    assert time.retry().call(failing(0)) == "done"
    assert time.slept == []


@pytest.mark.parametrize("failures", [1, 2, 10])
def test_a_failure_is_slept_over_once_each(failures: int) -> None:
    time = FakeTime()
    assert time.retry(budget_s=1000).call(failing(failures)) == "done"
    assert failures == len(time.slept)


def test_each_sleep_is_a_random_part_of_a_doubled_limit() -> None:
    limits = [1, 2, 4, 8, 8, 8]
    runs = []
    for _ in range(200):
        time = FakeTime()
        time.retry(budget_s=1000, first_s=1, longest_s=8).call(failing(len(limits)))
        runs.append(time.slept)
    for slept, limit in zip(zip(*runs), limits):
        assert 0 <= min(slept) < 0.1 * limit
        assert 0.9 * limit < max(slept) <= limit


def test_the_last_try_is_when_the_budget_is_spent() -> None:
    time = FakeTime()
    with pytest.raises(TransientStorageError, match="budget 30 s"):
        time.retry(budget_s=30, first_s=1, longest_s=8).call(failing(10**9))
    assert pytest.approx(sum(time.slept)) == 30


def test_giving_up_says_how_often_and_why() -> None:
    time = FakeTime()

    def slow() -> None:
        time.now += 10
        raise TransientStorageError("get s3://b/k: 503")

    with pytest.raises(TransientStorageError) as caught:
        time.retry(budget_s=25, first_s=1e-6, longest_s=1e-6).call(slow)
    expected = "get s3://b/k: 503; given up after 3 tries in 30 s (budget 25 s)"
    assert expected == str(caught.value)
    assert str(caught.value.__cause__) == "get s3://b/k: 503"


def test_without_a_budget_there_is_one_try() -> None:
    time = FakeTime()
    with pytest.raises(TransientStorageError, match="given up after 1 try in 0 s"):
        time.retry(budget_s=0).call(failing(1))
    assert time.slept == []


@pytest.mark.parametrize("error", [StorageError("forbidden"), ValueError("a bug")])
def test_what_no_retry_mends_is_raised_at_once(error: Exception) -> None:
    time = FakeTime()

    def operation() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        time.retry().call(operation)
    assert (error, []) == (caught.value, time.slept)


@pytest.mark.parametrize(
    "limits",
    [{"budget_s": -1}, {"first_s": 0}, {"first_s": 2, "longest_s": 1}],
)
def test_limits_that_make_no_sense_are_refused(limits: dict) -> None:
    with pytest.raises(InputError, match="retry needs"):
        Retry(**limits)
