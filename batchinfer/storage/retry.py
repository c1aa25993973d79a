"""Transient storage failures, tried again with full jitter until a budget of seconds is spent."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Callable, TypeVar

from batchinfer.errors import InputError, TransientStorageError

T = TypeVar("T")


@dataclass(frozen=True)
class Retry:
    """How long one storage operation is tried.

    Full jitter (sleep a random part of an exponentially growing limit) keeps 100 actors from
    coming back at once: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    Attributes:
        budget_s: seconds from the first try after which the failure is final; scope: one call.
        first_s: upper limit of the first sleep, in seconds; doubled each time.
        longest_s: upper limit of any sleep, in seconds.
        sleep, clock: taken from `time`; a test passes its own.
    """

    budget_s: float = 120.0
    first_s: float = 0.2
    longest_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.budget_s < 0 or self.first_s <= 0 or self.longest_s < self.first_s:
            raise InputError(
                "retry needs budget_s >= 0 and 0 < first_s <= longest_s; found "
                f"{self.budget_s}, {self.first_s}, {self.longest_s}"
            )

    def call(self, operation: Callable[[], T]) -> T:
        """Run `operation` until it works or fails for good; the last try is at the budget's end.

        Raises:
            TransientStorageError: it still failed when the budget was spent; says how often.
        """
        started = self.clock()
        tries = 0
        while True:
            tries += 1
            try:
                return operation()
            except TransientStorageError as error:
                spent = self.clock() - started
                if spent >= self.budget_s:
                    raise TransientStorageError(
                        f"{error}; given up after {tries} {'try' if tries == 1 else 'tries'} in "
                        f"{spent:.0f} s (budget {self.budget_s:.0f} s)"
                    ) from error
                limit = min(self.longest_s, self.first_s * 2 ** min(tries - 1, 16))
                self.sleep(min(random.uniform(0, limit), self.budget_s - spent))
