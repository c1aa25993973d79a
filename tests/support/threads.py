"""A backend whose actors are threads of this process: the whole driver without Ray's start-up.

It keeps Ray's manners: a lost actor answers nothing any more, and may go on writing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Callable, Optional

from batchinfer.actors import ScoringActor
from batchinfer.driver import Backend
from batchinfer.job import ScoringJob
from batchinfer.plan import Shard


class Signals:
    """Stands for the process's signals."""

    stop_name: Optional[str] = None


class ThreadEngine:
    """Actors on threads.

    Attributes:
        before, after: called with (actor, shard) around each `score`; a test raises
            ActorLostError there to kill the actor before or after it committed.
        scored: indices of the shards whose `score` began, in order.
    """

    def __init__(self, job: ScoringJob, capacity: int = 2) -> None:
        self.job = job
        self.before: Callable[[ScoringActor, Shard], None] = lambda actor, shard: None
        self.after: Callable[[ScoringActor, Shard], None] = lambda actor, shard: None
        self.scored: list = []
        self.killed: list = []
        self._capacity = capacity

    def spawn(self) -> ScoringActor:
        return ScoringActor(self.job)

    def start(self, actor: ScoringActor) -> Future:
        return self._call(actor.start)

    def score(self, actor: ScoringActor, shard: Shard) -> Future:
        def call():
            self.before(actor, shard)
            self.scored.append(shard.index)
            result = actor.score(shard)
            self.after(actor, shard)
            return result

        return self._call(call)

    def progress(self, actor: ScoringActor) -> Future:
        return self._call(actor.progress)

    def wait(self, calls, timeout_s):
        if not calls:
            time.sleep(min(timeout_s, 0.02))
            return []
        return list(wait(list(calls), timeout=timeout_s, return_when=FIRST_COMPLETED).done)

    def result(self, call):
        return call.result()

    def kill(self, actor) -> None:
        self.killed.append(actor)

    def capacity(self) -> int:
        return self._capacity

    def describe(self) -> str:
        return "threads"

    @staticmethod
    def _call(function) -> Future:
        future: Future = Future()

        def work():
            try:
                future.set_result(function())
            except BaseException as error:  # a mistake in a test's hook must not hang the run
                future.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return future


class ThreadBackend:
    """Makes a `Backend` and keeps the engine of the last run.

    Args:
        prepare_engine: called with the engine before it is used, to plant faults.
    """

    def __init__(self, prepare_engine: Callable[[ThreadEngine], None] = lambda engine: None):
        self.engine: Optional[ThreadEngine] = None
        self.signals = Signals()
        self._prepare = prepare_engine

    def backend(self) -> Backend:
        return Backend(self._connected, lambda cluster: False, self._engine)

    @contextlib.contextmanager
    def _connected(self, cluster):
        yield self.signals

    def _engine(self, job: ScoringJob, cluster) -> ThreadEngine:
        self.engine = ThreadEngine(job)
        self._prepare(self.engine)
        return self.engine
