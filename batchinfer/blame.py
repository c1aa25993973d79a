"""Who is at fault when a shard fails or an actor dies: rules without actors, clock or queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional, Sequence

from batchinfer.plan import Shard

FAILED_FIRST = 20  # different shards failed and none worked: the model or the machines are at fault


@dataclass
class Task:
    """A shard on its way, with what went wrong with it so far.

    Attributes:
        errors: one line per failed attempt that the shard is blamed for.
        given_at, copies: when it was handed out, and how many actors have it now.
        done: it was committed; what another actor still does for it does not matter.
        suspect: an actor died while it had this shard and others in hand; it runs alone from
            now on, so that the next death tells who is to blame.
    """

    shard: Shard
    errors: list[str] = field(default_factory=list)
    suspect: bool = False
    given_at: float = 0.0
    copies: int = 0
    done: bool = False


class Blame:
    """Decides which shards are tried again and which are given up.

    Args:
        max_attempts: failures that a shard is blamed for until it is given up.
        worked_before: shards of this run worked already, so the model as such does.
        max_failed: shards that may be given up; None is any number.

    Attributes:
        given_up: shard -> the errors of its attempts.
        retries: attempts that were granted after a failure.
        hopeless: why nothing more is worth a try; None as long as it is.
    """

    def __init__(
        self, max_attempts: int, worked_before: bool, max_failed: Optional[int] = None
    ) -> None:
        self.given_up: dict[int, list[str]] = {}
        self.retries = 0
        self.hopeless: Optional[str] = None
        self._max_attempts = max_attempts
        self._worked, self._max_failed = worked_before, max_failed
        self._failed: set[int] = set()

    def worked(self) -> None:
        """Some shard was committed."""
        self._worked = True

    def failed(self, task: Task, error: str) -> bool:
        """Note a failure that is the shard's own; whether the shard gets another try."""
        task.errors.append(error)
        self._failed.add(task.shard.index)
        if not self._worked and len(self._failed) >= FAILED_FIRST:
            self.hopeless = f"the first {FAILED_FIRST} shards failed and none worked; last: {error}"
        if len(task.errors) >= self._max_attempts:
            self.give_up(task, [])
            return False
        self.retries += 1
        return True

    def died(self, tasks: Sequence[Task], reason: str, node_died: bool) -> list[Task]:
        """What of a dead actor's shards is tried again.

        The death of a node says nothing about its shards. Else the only shard in hand is
        blamed; several become suspects.
        """
        if node_died:
            return list(tasks)
        for task in tasks:
            task.suspect = True
        if len(tasks) != 1:
            return list(tasks)
        why = f"the actor died while it scored only this shard: {reason}"
        return [task for task in tasks if self.failed(task, why)]

    def give_up(self, task: Task, more: Sequence[str]) -> None:
        errors = self.given_up[task.shard.index] = [*task.errors, *more]
        limit = self._max_failed
        if limit is not None and len(self.given_up) > limit and self.hopeless is None:
            self.hopeless = (
                f"{len(self.given_up)} shards were given up, --max-failed-shards is {limit}; "
                f"the last, shard {task.shard.index}: {errors[-1]}"
            )

    def bad_row(self, task: Task, error: str) -> None:
        """One row of a shard cannot be scored, and no such row is borne."""
        self.give_up(task, [error])
        self.hopeless = error
