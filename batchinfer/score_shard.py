"""The loop: read, score, encode and commit one shard, each step timed."""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping, Tuple

import numpy as np

from batchinfer.batch import Batch, rebatch
from batchinfer.commit import commit_shard
from batchinfer.errors import ShardError
from batchinfer.ledger import ShardRecord
from batchinfer.pipeline import Lane
from batchinfer.plan import Shard
from batchinfer.prediction_writer import PredictionWriter, object_metadata
from batchinfer.run_folder import RunFolder
from batchinfer.schema import Columns
from batchinfer.shard_progress import Progress
from batchinfer.shard_reader import ShardReader
from batchinfer.storage import Store

Scored = Tuple[Tuple[Any, ...], int, Mapping[str, "np.ndarray[Any, Any]"]]


def score_shard(
    shard: Shard,
    scorer: Any,
    columns: Columns,
    folder: RunFolder,
    fingerprint: str,
    open_input: Callable[[str], tuple[Store, str]],
    lane: Lane,
    progress: Progress,
) -> ShardRecord:
    """Score every row of a shard and make its one output object.

    Reading, scoring and encoding each have threads of their own; encoding is done here.

    Args:
        scorer: has `score(feeds)` and `batch_rows`; called from all threads of the lane at once.
        open_input: URL -> store and path.
        lane: of the device; a shard computes while it has the turn. The next shard of the same
            actor reads ahead meanwhile, and this one encodes and writes after it.

    Raises:
        ShardError: this shard cannot be scored as it is.
        StorageError: its output cannot be written.
    """
    reader = ShardReader(shard, columns, open_input)
    predictions = PredictionWriter(columns, object_metadata(shard, fingerprint))

    def score(batch: Batch) -> Scored:
        with progress.timed("score", batch.num_rows):
            return batch.kept, batch.num_rows, scorer.score(batch.feeds)

    batches = _timed_reads(rebatch(reader, scorer.batch_rows), progress)
    scored = lane.map(score, batches, lambda: progress.at("scoring"), progress.waited)
    for kept, num_rows, outputs in scored:
        with progress.timed("encode", num_rows):
            predictions.add(kept, outputs)
        progress.rows += num_rows
    progress.at("writing")
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
        del batch
