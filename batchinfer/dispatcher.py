"""Hands shards to actors until none is left: replaces the lost, retries, gives up, releases.

It knows nothing of Ray: an engine (see `actors.RayEngine`) spawns actors and tells which calls
have ended, and a test's engine does the same with a clock of its own.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any, Callable, DefaultDict, Deque, Iterable, Mapping, Optional

from batchinfer.blame import Blame, Task
from batchinfer.errors import BatchinferError, InputError, StoppedError, TransientStorageError
from batchinfer.ledger import ShardRecord
from batchinfer.options import FaultOptions
from batchinfer.plan import Shard
from batchinfer.profile import Profile
from batchinfer.stragglers import Stragglers

LOG = logging.getLogger("batchinfer")
STEP_S = 0.5  # longest sleep of the loop: how soon a signal is noticed
WATCH_EVERY_S = 2.0  # that each actor is asked how far it is
ASKED_A_SECOND = 16  # actors; more would be most of what the driver has to do
CAPACITY_EVERY_S = 10.0  # how soon a node that joins gets actors
SHARDS_IN_HAND = 2  # of one actor: one running, one queued
FAILED_STARTS = 3  # in a row, without one that worked, until the run stops


class ActorLostError(BatchinferError):
    """The actor, its node or its memory is gone; its shards are not to blame by that alone.

    Args:
        node_died: it is known that the whole node went, a spot node that was taken back say.
    """

    def __init__(self, reason: str, node_died: bool = False) -> None:
        super().__init__(reason)
        self.node_died = node_died


@dataclass
class Worker:
    """One actor as the dispatcher sees it."""

    actor: Any
    starting: Any
    moved_at: float
    ready: bool = False
    device: str = ""
    name: str = ""
    tasks: dict[Any, Task] = field(default_factory=dict)  # by call, in order of submission
    asking: Any = None
    progress: Mapping[int, tuple[str, int, int]] = field(default_factory=dict)

    def has_room(self) -> bool:
        alone = any(task.suspect for task in self.tasks.values())
        return self.ready and not alone and len(self.tasks) < SHARDS_IN_HAND


class Dispatcher:
    """Runs shards to their end: a record each, or an entry in `blame.given_up`.

    Attributes:
        blame: what failed, how often, and what was given up.
        devices: of every actor that started.
        batch_rows: per device, of the run of the model that was heard of last.
        profile: the steps that actors sent with their records.
        actors_lost, second_tries: counts for the report.
        first_ready_at: on `clock`, when the first actor had its model; None before.
    """

    def __init__(
        self,
        engine: Any,
        shards: Iterable[Shard],
        faults: FaultOptions,
        on_record: Callable[[ShardRecord], None],
        actors: Optional[int] = None,
        worked_before: bool = False,
        second_try: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.blame = Blame(faults.max_attempts, worked_before, faults.max_failed_shards)
        self.devices: list[str] = []
        self.batch_rows: dict[str, int] = {}
        self.profile = Profile()
        self.actors_lost = self.second_tries = 0
        self.first_ready_at: Optional[float] = None
        self.workers: list[Worker] = []
        self._engine = engine
        self._queue: Deque[Task] = deque()
        for shard in shards:
            if shard.problem:  # nothing that an actor could mend
                self.blame.give_up(Task(shard), [shard.problem])
            else:
                self._queue.append(Task(shard))
        self._faults = faults
        self._stragglers = Stragglers() if second_try else None
        self._on_record = on_record
        self._actors = actors
        self._clock = clock
        self._ready_at = self._watched_at = clock()
        self._capacity = 0
        self._capacity_at = -CAPACITY_EVERY_S
        self._failed_starts = 0
        self._hire_at = 0.0

    def run(self, between: Callable[[], None]) -> None:
        """Work until every shard is done or given up.

        Args:
            between: called after each step (every half second or sooner); may raise to stop.

        Raises:
            InputError: no actor can start, for a reason that another would meet as well.
            StoppedError: no actor came in time, or the storage failed for too long.
        """
        try:
            while self._queue or not all(task.done for task in self._running()):
                if self.blame.hopeless:
                    self._give_up_all(self.blame.hopeless)
                    break
                self._hire()
                self._assign()
                for call in self._engine.wait(self._calls(), STEP_S):
                    self._settle(call)
                self._watch()
                between()
        finally:
            for worker in list(self.workers):
                self._dismiss(worker)

    def _give_up_all(self, reason: str) -> None:
        for worker in list(self.workers):
            self._dismiss(worker)
        for task in self._queue:
            self.blame.give_up(task, [f"not tried further: {reason}"])
        self._queue.clear()

    def rows_in_hand(self) -> int:
        """Rows scored of shards that are not committed yet, as last heard."""
        found: DefaultDict[int, int] = defaultdict(int)
        for worker in self.workers:
            done = {task.shard.index for task in worker.tasks.values() if task.done}
            for index, (_, rows, _) in worker.progress.items():
                found[index] = max(found[index], 0 if index in done else rows)
        return sum(found.values())

    def _running(self) -> list[Task]:
        return [task for worker in self.workers for task in worker.tasks.values()]

    def _hire(self) -> None:
        now = self._clock()
        if now - self._capacity_at >= CAPACITY_EVERY_S:
            self._capacity, self._capacity_at = self._actors or self._engine.capacity(), now
        shards = len(self._queue) + sum(len(worker.tasks) for worker in self.workers)
        while (
            self._queue and now >= self._hire_at and len(self.workers) < min(self._capacity, shards)
        ):
            actor = self._engine.spawn()
            self.workers.append(Worker(actor, self._engine.start(actor), now))

    def _assign(self) -> None:
        """Idle actors first; a second shard in hand only of what no other is about to take."""
        for worker in self.workers:
            if self._queue and not worker.tasks and worker.has_room():
                self._give(worker, self._queue.popleft())
        starting = sum(not worker.ready for worker in self.workers)
        for worker in self.workers:
            more = len(self._queue) > starting and not self._queue[0].suspect
            if more and worker.tasks and worker.has_room():
                self._give(worker, self._queue.popleft())
        if not self._queue:
            self._spare([worker for worker in self.workers if not worker.tasks])

    def _spare(self, idle: list[Worker]) -> None:
        """Slow shards for actors without work; those that get none go, so that nodes can go."""
        slow, running, now = self._stragglers, self._running(), self._clock()
        waiting = 0 if slow is None else slow.soon_late(running, now)
        for worker in idle:
            task = slow.pick(running, now) if slow and worker.ready else None
            if slow and task:
                LOG.info(
                    f"shard {task.shard.index} takes longer than {slow.late_s():.0f} s: "
                    f"{worker.name} tries it as well"
                )
                self.second_tries += 1
                self._give(worker, task)
            waiting -= 1
            if not task and waiting < 0:
                self._dismiss(worker)

    def _give(self, worker: Worker, task: Task) -> None:
        if not worker.tasks:
            worker.moved_at = self._clock()
        task.copies += 1
        if task.copies == 1:
            task.given_at = self._clock()
        worker.tasks[self._engine.score(worker.actor, task.shard)] = task

    def _calls(self) -> list[Any]:
        calls = []
        for worker in self.workers:
            calls += [] if worker.ready else [worker.starting]
            calls += [*worker.tasks] + ([worker.asking] if worker.asking is not None else [])
        return calls

    def _settle(self, call: Any) -> None:
        """Act on a call that has ended."""
        worker = next((w for w in self.workers if self._is_of(call, w)), None)
        if worker is None:
            return  # of an actor that was given up in this very step
        try:
            result = self._engine.result(call)
        except ActorLostError as error:
            self._lost(worker, str(error), error.node_died)
            return
        if call == worker.starting:
            self._begun(worker, result)
        elif call == worker.asking:
            self._heard(worker, result)
        else:
            self._ended(worker, worker.tasks.pop(call), result)

    def _is_of(self, call: Any, worker: Worker) -> bool:
        return call in worker.tasks or call == worker.starting or call == worker.asking

    def _begun(self, worker: Worker, result: Mapping[str, Any]) -> None:
        if "error" in result:
            self._dismiss(worker)
            self._failed_start(result["error"], bool(result["final"]))
            return
        worker.ready, worker.device, worker.starting = True, result["device"], None
        where = f"{result.get('node', '')} pid {result.get('pid', '')} {worker.device}"
        worker.name = f"actor {len(self.devices)} on {where}"
        worker.moved_at = self._clock()
        self.devices.append(result["device"])
        self._failed_starts = 0
        self.first_ready_at = self.first_ready_at or self._clock()

    def _failed_start(self, error: str, final: bool) -> None:
        self._failed_starts += 1
        if final and not self.devices:
            raise InputError(f"an actor cannot start: {error}")
        if self._failed_starts >= FAILED_STARTS and not any(w.ready for w in self.workers):
            raise StoppedError(
                f"{self._failed_starts} actors in a row did not start; last: {error}"
            )
        self._hire_at = self._clock() + 2.0**self._failed_starts

    def _ended(self, worker: Worker, task: Task, result: Mapping[str, Any]) -> None:
        worker.moved_at = self._clock()
        # What was heard of this shard before is counted by its record from now on.
        heard = dict(worker.progress)
        heard.pop(task.shard.index, None)
        worker.progress = heard
        task.copies -= 1
        if "record" in result and not task.done:
            task.done = True
            if self._stragglers:
                self._stragglers.finished(self._clock() - task.given_at)
            self.blame.worked()
            if "batch_rows" in result:
                self.batch_rows[worker.device] = result["batch_rows"]
            self.profile.add(worker.name, task.shard.index, result.get("spans", ()))
            attempts = len(task.errors) + 1
            self._on_record(ShardRecord(**{**result["record"], "attempts": attempts}))
        if "record" in result:
            return
        if result["kind"] == "process":  # after a CUDA error a process is not to be trusted
            self._dismiss(worker)
        if task.done or task.copies:
            return  # another actor has done it, or still tries
        if result["kind"] == "row":
            self.blame.bad_row(task, result["error"])
        elif self.blame.failed(task, result["error"]):
            self._queue.append(task)
        elif result["kind"] == "storage":  # not the shard's fault; it is tried by the next run
            raise TransientStorageError(result["error"])

    def _lost(self, worker: Worker, reason: str, node_died: bool = False) -> None:
        """Take an actor off that is gone, and put back what it had in hand."""
        self.actors_lost += 1
        tasks = self._taken_from(worker)
        self._dismiss(worker)
        if not worker.ready:
            self._failed_start(reason, final=False)
        self._queue.extend(self.blame.died(tasks, reason, node_died))

    def _dismiss(self, worker: Worker) -> None:
        """End an actor; what it still had in hand goes back to the queue without blame."""
        self.workers.remove(worker)
        self._engine.kill(worker.actor)
        self._queue.extend(self._taken_from(worker))

    def _taken_from(self, worker: Worker) -> list[Task]:
        """What nobody does any more once this actor does not."""
        tasks, worker.tasks = list(worker.tasks.values()), {}
        for task in tasks:
            task.copies -= 1
        return [task for task in tasks if not task.done and not task.copies]

    def _watch(self) -> None:
        """Ask busy actors how far they are; end those that stand still; give up waiting for any."""
        now = self._clock()
        if any(worker.ready for worker in self.workers):
            self._ready_at = now
        elif now - self._ready_at > self._faults.start_timeout_s:
            raise StoppedError(
                f"no actor was ready for {self._faults.start_timeout_s:.0f} s: "
                f"{self._engine.describe()}"
            )
        if now - self._watched_at < self._watch_every_s():
            return
        self._watched_at = now
        for worker in [w for w in self.workers if w.tasks]:
            if now - worker.moved_at > self._faults.stall_timeout_s:
                stages = {i: stage for i, (stage, _, _) in worker.progress.items()}
                self._lost(
                    worker, f"no progress for {now - worker.moved_at:.0f} s, stages {stages}"
                )
            elif worker.asking is None:
                worker.asking = self._engine.progress(worker.actor)

    def _watch_every_s(self) -> float:
        """Many actors are asked less often, but several times within the time of a stall."""
        relaxed_s = min(len(self.workers) / ASKED_A_SECOND, self._faults.stall_timeout_s / 4)
        return max(WATCH_EVERY_S, relaxed_s)

    def _heard(self, worker: Worker, progress: Mapping[int, tuple[str, int, int]]) -> None:
        worker.asking = None
        in_hand = {task.shard.index for task in worker.tasks.values()}
        progress = {index: state for index, state in progress.items() if index in in_hand}
        if progress != worker.progress:
            worker.moved_at = self._clock()
        worker.progress = progress
