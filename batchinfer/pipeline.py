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
def read_ahead(items: Iterable[T], ahead: int) -> Iterator[Iterator[T]]:
    """Iterate `items` on a thread of its own, at most `ahead` items before the consumer.

    What `items` raises is raised in the consumer, after the items before it. When the block
    ends, however it ends, the thread is told to stop and is waited for.
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

    def drain() -> Iterator[T]:
        while True:
            item, error = box.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    try:
        yield drain()
    finally:
        stop.set()
        thread.join()


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """`map` on `workers` threads, in order, at most `ahead` items begun before the consumer.

    The first error is raised in its place; what had begun after it is finished and dropped.
    """
    with ThreadPoolExecutor(workers, thread_name_prefix="score") as pool:
        begun: Deque[Future[R]] = deque()
        for item in items:
            begun.append(pool.submit(function, item))
            if len(begun) >= ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
