"""Bounded stages on threads; an error comes out where the results are asked for."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Iterable, Iterator, TypeVar

T = TypeVar("T")
R = TypeVar("R")

POLL_S = 0.2  # how soon a reader notices that nobody wants its items any more


@contextlib.contextmanager
def read_ahead(items: Iterable[T], ahead: int, name: str = "read-ahead") -> Iterator[Iterator[T]]:
    """Iterate `items` on a thread of its own, at most `ahead` items before the consumer.

    What `items` raises is raised in the consumer, after the items before it. When the block
    ends, however it ends, the thread is told to stop and is waited for, and `items` is closed
    if it is a generator.
    """
    box: queue.Queue[Any] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(entry: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                box.put(entry, timeout=POLL_S)
                return True
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:  # handed over, never dropped
            put((None, error))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def drain() -> Iterator[T]:
        while True:
            item, error = box.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item

    thread = threading.Thread(target=read, name=name, daemon=True)
    thread.start()
    try:
        yield drain()
    finally:
        stop.set()
        thread.join()


class Lane:
    """Threads that one device is fed from, shared by the shards of an actor.

    One shard has the turn at a time. The next gets it when the last batch of this one was handed
    to the threads, not when it came back: so the device is not idle between two shards.

    Args:
        workers: threads, and so calls at once.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="score")
        self._turn = threading.Lock()

    def map(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        on_turn: Callable[[], None] = lambda: None,
    ) -> Iterator[R]:
        """`map` in order, with one item more begun than there are threads.

        The first error is raised in its place; what had begun after it is finished and dropped.

        Args:
            on_turn: called when the turn has come.
        """
        begun: Deque[Future[R]] = deque()
        with self._turn:
            on_turn()
            for item in items:
                begun.append(self._pool.submit(function, item))
                del item  # its memory is the function's from here on
                if len(begun) > self.workers:
                    yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def close(self) -> None:
        """Wait for what has begun, and end the threads."""
        self._pool.shutdown()
