"""The loop: read, score, encode and commit one shard, each step timed."""

from __future__ import annotations

import itertools
from typing import Any, Callable, Iterator, Tuple

from batchinfer.arrow import pa
from batchinfer.batch import Batch, rebatch
from batchinfer.commit import commit_shard
from batchinfer.errors import BadRowError, ShardError
from batchinfer.ledger import ShardRecord
from batchinfer.pipeline import Lane
from batchinfer.plan import Shard
from batchinfer.poison import Part, Sieve
from batchinfer.prediction_writer import PredictionWriter, object_metadata
from batchinfer.rejects import Rejects
from batchinfer.run_folder import RunFolder
from batchinfer.schema import Columns
from batchinfer.shard_progress import Progress
from batchinfer.shard_reader import ShardReader
from batchinfer.storage import Store


def score_shard(
    shard: Shard,
    scorer: Any,
    columns: Columns,
    folder: RunFolder,
    fingerprint: str,
    open_input: Callable[[str], tuple[Store, str]],
    lane: Lane,
    progress: Progress,
    fail_on_bad_row: bool = False,
) -> ShardRecord:
    """Score every row of a shard and make its one output object.

    Reading, scoring and encoding each have threads of their own; encoding is done here.

    Args:
        scorer: has `score(feeds)` and `batch_rows`; called from all threads of the lane at once.
        open_input: URL -> store and path.
        lane: of the device; a shard computes while it has the turn. The next shard of the same
            actor reads ahead meanwhile, and this one encodes and writes after it.
        fail_on_bad_row: a row that cannot be scored fails the shard; else it goes to the rejects.

    Raises:
        ShardError: this shard cannot be scored as it is.
        StorageError: its output cannot be written.
    """
    reader = ShardReader(shard, columns, open_input)
    predictions = PredictionWriter(columns, object_metadata(shard, fingerprint))

    refused = Rejects(columns.kept)
    sieve = Sieve(scorer.score, getattr(scorer, "refused", ()))

    def score(batch: Batch) -> Tuple[Part, ...]:
        with progress.timed("score", batch.num_rows):
            return sieve.parts(batch)

    batches = _timed_reads(rebatch(reader, scorer.batch_rows), progress)
    scored = lane.map(score, batches, lambda: progress.at("scoring"), progress.waited)
    for part in itertools.chain.from_iterable(scored):
        with progress.timed("encode", part.num_rows):
            if part.outputs is not None:
                predictions.add(part.kept, part.outputs)
            else:
                kept = part.kept[0] if part.kept else pa.table({})
                refused.add(part.url, [part.row], [part.reason], kept)
        progress.rows += part.num_rows
        if fail_on_bad_row:
            _fail(reader.rejects, refused)
    rejects = reader.rejects.joined(refused, [segment.url for segment in shard.segments])
    if fail_on_bad_row:
        _fail(rejects)
    progress.at("writing")
    with progress.timed("encode"):
        data = predictions.finish()
    if predictions.num_rows + rejects.num_rows != shard.num_rows:
        raise ShardError(
            f"shard {shard.index}: {shard.num_rows} rows in, {predictions.num_rows} scored and "
            f"{rejects.num_rows} rejected"
        )
    with progress.timed("write"):
        record = commit_shard(folder, fingerprint, shard, data, rejects)
    return ShardRecord(**{**record.__dict__, "seconds": dict(progress.seconds)})


def _fail(*rejects: Rejects) -> None:
    """Raise BadRowError for the first row of these, if there is one."""
    for found in rejects:
        if found.num_rows:
            url, row, reason = found.first()
            raise BadRowError(f"{url}: row {row}: {reason} (--on-bad-row fail)")


def _timed_reads(batches: Iterator[Batch], progress: Progress) -> Iterator[Batch]:
    while True:
        with progress.timed("read"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch
        del batch
