"""Which shards are tried a second time, on an actor that has nothing else to do: the slow ones.

One machine that is slow, throttled or half dead would otherwise hold up the end of a run. Whichever
try is done first counts; the other one meets its object and adopts it, or is ended with its actor.
"""

from __future__ import annotations

import bisect
from typing import List, Optional, Sequence

from batchinfer.blame import Task

SLOWER = 2.0  # times the median shard
AT_LEAST_S = 30.0  # a shorter wait is not worth a second try
WAIT_S = 120.0  # that an idle actor, and so its node, is kept for a shard that may be late then


class Stragglers:
    """Knows how long shards take, from being handed out until they are committed."""

    def __init__(self) -> None:
        self._seconds: List[float] = []

    def finished(self, seconds: float) -> None:
        bisect.insort(self._seconds, seconds)

    def candidates(self, running: Sequence[Task]) -> List[Task]:
        """Those that may be tried again, the one first that was handed out first.

        None that failed before or may have killed an actor: it might do so again.
        """
        if not self._seconds:
            return []
        alone = {id(task): task for task in running if task.copies == 1 and not task.done}
        sound = [task for task in alone.values() if not task.errors and not task.suspect]
        return sorted(sound, key=lambda task: task.given_at)

    def pick(self, running: Sequence[Task], now: float) -> Optional[Task]:
        """The slowest, if it is late."""
        for task in self.candidates(running)[:1]:
            if now - task.given_at > self.late_s():
                return task
        return None

    def soon_late(self, running: Sequence[Task], now: float) -> int:
        """How many may be late soon: as many idle actors are worth their wait."""
        found = self.candidates(running)
        return sum(now - task.given_at > self.late_s() - WAIT_S for task in found)

    def late_s(self) -> float:
        """Seconds after which a shard is late."""
        return max(AT_LEAST_S, SLOWER * self._seconds[len(self._seconds) // 2])
