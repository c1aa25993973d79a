"""How far a shard is and where its time goes; with a profile, each step by itself."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Iterator, List, Optional, Tuple

Span = Tuple[str, str, float, float, int]  # stage, track, start and end in epoch seconds, rows


@dataclass
class Progress:
    """How far a shard is, readable from another thread.

    Attributes:
        stage: what the shard is at: waiting, scoring, writing.
        rows: rows scored so far.
        steps: grows with each batch read, scored or written; a clock that stands still is a hang.
        seconds: time per stage, summed over its threads: read (fetch and decode), wait (the
            device's threads for a batch), score (session runs), encode, write (the commit).
        spans: each step of each stage, where a profile is wanted, else None.
        slot: which of the actor's shards in hand this is; names the tracks of the profile.
    """

    stage: str = "waiting"
    rows: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    spans: Optional[List[Span]] = None
    slot: int = 0
    _began: float = field(default_factory=time.perf_counter, repr=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    def at(self, stage: str) -> None:
        self.stage = stage

    @contextmanager
    def timed(self, stage: str, num_rows: int = 0) -> Iterator[None]:
        """Add the seconds of this block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._add(stage, time.perf_counter() - started, num_rows)

    def waited(self, seconds: float) -> None:
        """Add what a thread of the device waited; before this shard it waited for others."""
        self._add("wait", min(seconds, time.perf_counter() - self._began), 0)

    def _add(self, stage: str, spent: float, num_rows: int) -> None:
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
            self.steps += 1
            if self.spans is not None:
                self.spans.append(self._span(stage, spent, num_rows))

    def _span(self, stage: str, spent: float, num_rows: int) -> Span:
        now, track = time.time(), f"{stage} {self.slot}"
        if stage in ("score", "wait"):  # threads of all shards
            track = f"score {threading.current_thread().name.rpartition('_')[2]}"
        return stage, track, now - spent, now, num_rows
