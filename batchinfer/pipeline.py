"""Items read on one thread, worked on by the threads of a device, consumed in order on a third.

Three threads hand batches on thousands of times a minute: through `SimpleQueue`, which is C, and
with tokens in place of conditions.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from queue import SimpleQueue
from typing import Any, Callable, Deque, Dict, Iterable, Iterator, Optional, Tuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")

READ_AHEAD = 2  # items that wait for a thread; as many are held while another shard has the turn
CONSUME_BEHIND = 6  # results that wait for the consumer


class EndOfItems(Exception):
    """Stands behind the last result; never leaves this module."""


class Lane:
    """Threads that one device is fed from, shared by the shards of an actor.

    One shard has the turn at a time. The next gets it when the last batch of this one was handed
    to the threads, not when it came back: so the device is not idle between two shards.

    Args:
        workers: threads, and so calls at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.turn = threading.Lock()
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        for number in range(workers):
            name = f"score_{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        on_turn: Callable[[], None] = lambda: None,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> Iterator[R]:
        """`map` in order; `items` are read on a thread of their own, a few ahead.

        At most `workers` + 2 items and 6 results are in memory, and one that is being read. What
        `items` or `function` raise is raised in its place. However the consumer leaves, the reading
        thread is told to stop, closes `items` if it is a generator, and is waited for.

        Args:
            on_turn: called when the turn has come.
            on_wait: told how long a thread waited before it worked on an item.
        """
        return _Flow(self, function, items, on_turn, on_wait).results()

    def submit(self, job: Callable[[float], None]) -> None:
        """Have a thread call `job` with the seconds that it waited before."""
        self._jobs.put(job)

    def close(self) -> None:
        """End the threads, once they have done what they were given."""
        for _ in range(self.workers):
            self._jobs.put(None)

    def _work(self) -> None:
        while True:
            began = time.perf_counter()
            job = self._jobs.get()
            if job is None:
                return
            job(time.perf_counter() - began)
            del job  # and with it the item


class _Flow:
    """The items of one shard on their way through a lane."""

    def __init__(
        self,
        lane: Lane,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        on_turn: Callable[[], None],
        on_wait: Callable[[float], None],
    ) -> None:
        self._lane, self._function, self._items = lane, function, items
        self._on_turn, self._on_wait = on_turn, on_wait
        self._results: SimpleQueue[Tuple[int, Any, Optional[BaseException]]] = SimpleQueue()
        self._room, self._behind = (
            _tokens(lane.workers + READ_AHEAD),
            _tokens(lane.workers + CONSUME_BEHIND),
        )
        self._stopped = False
        self._begun = 0

    def results(self) -> Iterator[Any]:
        reader = threading.Thread(target=self._read, name="read", daemon=True)
        reader.start()
        early: Dict[int, Tuple[Any, Optional[BaseException]]] = {}
        number = 0
        try:
            while True:
                while number not in early:
                    found, result, error = self._results.get()
                    early[found] = (result, error)
                result, error = early.pop(number)
                if isinstance(error, EndOfItems):
                    return
                if error is not None:
                    raise error
                self._behind.put(None)
                number += 1
                yield result
                del result
        finally:
            self._stopped = True
            self._room.put(None)  # a reader that waits for either sees that it is over
            self._behind.put(None)
            reader.join()

    def _read(self) -> None:
        """Hand every item over, then the end; with the turn from the first to the last."""
        held: Deque[Any] = deque()
        turn, end = False, EndOfItems()  # type: Tuple[bool, BaseException]
        try:
            for item in self._items:
                held.append(item)
                del item
                turn = turn or self._take_turn(len(held) >= READ_AHEAD)
                if self._stopped or (turn and not self._submit(held)):
                    return
            turn = turn or self._take_turn(True)
            self._submit(held)
        except BaseException as error:  # handed over, never dropped
            end = error
        finally:
            if turn:
                self._lane.turn.release()
            self._results.put((self._begun, None, self._closed(end)))

    def _closed(self, end: BaseException) -> BaseException:
        """Close the items, and what ends them: `end`, or what closing raised."""
        try:
            getattr(self._items, "close", lambda: None)()
        except BaseException as error:
            return error
        return end

    def _take_turn(self, wait: bool) -> bool:
        taken = self._lane.turn.acquire(blocking=wait)
        if taken:
            self._on_turn()
        return taken

    def _submit(self, held: Deque[Any]) -> bool:
        """Hand over what is held; False when nobody wants results any more."""
        while held:
            self._room.get()
            self._behind.get()
            if self._stopped:
                return False
            self._lane.submit(partial(self._work, self._begun, held.popleft()))
            self._begun += 1
        return True

    def _work(self, number: int, item: Any, waited_s: float) -> None:
        result: Tuple[Any, Optional[BaseException]] = (None, None)
        if not self._stopped:
            try:
                self._on_wait(waited_s)
                result = (self._function(item), None)
            except BaseException as error:
                result = (None, error)
        self._room.put(None)
        self._results.put((number, *result))


def _tokens(count: int) -> SimpleQueue[Any]:
    """A semaphore in C: `get` takes one, `put(None)` gives it back."""
    found: SimpleQueue[Any] = SimpleQueue()
    for _ in range(count):
        found.put(None)
    return found
