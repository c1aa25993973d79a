"""The loop: read, score, encode and commit one shard, each step timed."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

import numpy as np

from batchinfer.batch import Batch, rebatch
from batchinfer.commit import commit_shard
from batchinfer.errors import ShardError
from batchinfer.ledger import ShardRecord
from batchinfer.pipeline import ordered_map, read_ahead
from batchinfer.plan import Shard
from batchinfer.prediction_writer import PredictionWriter, object_metadata
from batchinfer.run_folder import RunFolder
from batchinfer.schema import Columns
from batchinfer.shard_reader import ShardReader
from batchinfer.storage import Store

READ_AHEAD_BATCHES = 4  # decoded batches that wait for the device; with `callers` in flight


@dataclass
class Progress:
    """How far a shard is, readable from another thread.

    Attributes:
        stage: what the shard's own thread is at: waiting, scoring, writing.
        rows: rows scored so far.
        steps: grows with each batch read, scored or written; a clock that stands still is a hang.
        seconds: time per stage; `read` and `score` are summed over their threads.
    """

    stage: str = "waiting"
    rows: int = 0
    steps: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.Lock, repr=False)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds of this block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                spent = time.perf_counter() - started
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
                self.steps += 1


def score_shard(
    shard: Shard,
    scorer: Any,
    columns: Columns,
    folder: RunFolder,
    fingerprint: str,
    open_input: Callable[[str], tuple[Store, str]],
    turn: Any,
    callers: int,
    progress: Progress,
) -> ShardRecord:
    """Score every row of a shard and make its one output object.

    Args:
        scorer: has `score(feeds)` and `batch_rows`; called from `callers` threads at once.
        open_input: URL -> store and path.
        turn: a lock; a shard computes while it holds it. The next shard of the same actor may
            read ahead meanwhile, and this one encodes and writes after it.

    Raises:
        ShardError: this shard cannot be scored as it is.
        StorageError: its output cannot be written.
    """
    reader = ShardReader(shard, columns, open_input)
    predictions = PredictionWriter(columns, object_metadata(shard, fingerprint))

    def score(batch: Batch) -> tuple[Batch, dict[str, np.ndarray[Any, Any]]]:
        with progress.timed("score"):
            return batch, scorer.score(batch.feeds)

    source = _timed_reads(rebatch(reader, scorer.batch_rows), progress)
    with read_ahead(source, READ_AHEAD_BATCHES) as batches:
        with turn:
            progress.stage = "scoring"
            for batch, outputs in ordered_map(score, batches, callers, ahead=callers + 1):
                with progress.timed("encode"):
                    predictions.add(batch.kept, outputs)
                progress.rows += batch.num_rows
    progress.stage = "writing"
    with progress.timed("encode"):
        data = predictions.finish()
    if predictions.num_rows + reader.rejects.num_rows != shard.num_rows:
        raise ShardError(
            f"shard {shard.index}: {shard.num_rows} rows in, {predictions.num_rows} scored and "
            f"{reader.rejects.num_rows} rejected"
        )
    with progress.timed("write"):
        record = commit_shard(folder, fingerprint, shard, data, reader.rejects)
    return ShardRecord(**{**record.__dict__, "seconds": dict(progress.seconds)})


def _timed_reads(batches: Iterator[Batch], progress: Progress) -> Iterator[Batch]:
    while True:
        with progress.timed("read"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
