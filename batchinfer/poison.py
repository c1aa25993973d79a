"""A batch that the model refuses -> the rows that are at fault, alone, and the others scored."""

from __future__ import annotations

from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Iterator,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Type,
)

import numpy as np

from batchinfer.batch import Batch
from batchinfer.errors import ShardError, first_line

TRIED_ALONE = 32  # rows from all over a batch; if every one is refused, the model refuses them all

Score = Callable[[Mapping[str, Any]], Mapping[str, "np.ndarray[Any, Any]"]]
Refused = Tuple[Type[BaseException], ...]


class Part(NamedTuple):
    """Neighbouring rows of a batch, without what was fed.

    Attributes:
        kept, num_rows: as in `Batch`.
        outputs: of the model; None for a row that it refuses.
        url, row, reason: of a row that it refuses: its file, its number there, and why.
    """

    kept: Tuple[Any, ...]
    num_rows: int
    outputs: Optional[Mapping[str, np.ndarray[Any, Any]]]
    url: str = ""
    row: int = 0
    reason: str = ""


class Sieve:
    """Scores the batches of one shard and finds the rows that the model's ops refuse.

    A batch of n rows with k such rows takes about 2 k log2(n) runs more. Where no row of the shard
    has been accepted, rows from all over the batch are tried first, so that a model that refuses
    everything costs a few runs, not two for each row.

    Args:
        score: n rows per input -> n rows per output.
        refused: what it raises for a row that cannot be computed.
    """

    def __init__(self, score: Score, refused: Sequence[Type[BaseException]]) -> None:
        self._score, self._refused = score, tuple(refused)
        self._accepted = False

    def parts(self, batch: Batch) -> Tuple[Part, ...]:
        """All rows of the batch, in order.

        Raises:
            ShardError: the model refuses every row that was tried.
        """
        try:
            return (self._scored(batch),)
        except self._refused as error:
            if not self._accepted and batch.num_rows >= TRIED_ALONE and not self._any(batch):
                raise ShardError(
                    f"the model refuses {TRIED_ALONE} rows from all over a batch, each of them "
                    f"alone: {first_line(error)}"
                ) from error
            return tuple(self._apart(batch, error))

    def _scored(self, batch: Batch) -> Part:
        outputs = self._score(batch.feeds)
        self._accepted = True
        return Part(batch.kept, batch.num_rows, outputs)

    def _any(self, batch: Batch) -> bool:
        """Whether one of the rows that are tried alone is accepted."""
        for row in np.linspace(0, batch.num_rows - 1, TRIED_ALONE).astype(int).tolist():
            try:
                self._scored(batch.slice(row, row + 1))
                return True
            except self._refused:
                continue
        return False

    def _apart(self, batch: Batch, error: BaseException) -> Iterator[Part]:
        """Of a batch that was refused: its halves, down to single rows; from left to right."""
        if batch.num_rows == 1:
            (place,) = batch.places
            reason = f"the model refuses it: {first_line(error)}"
            yield Part(batch.kept, 1, None, place.url, place.first_row, reason)
            return
        for half in halves(batch):
            try:
                scored = self._scored(half)
            except self._refused as why:
                yield from self._apart(half, why)
            else:
                yield scored


def sound(score: Score, refused: Sequence[Type[BaseException]], batch: Batch) -> Optional[Batch]:
    """Rows of a batch that the model accepts, as many as a few tries find; None without any."""
    left: Deque[Batch] = deque([batch])
    for _ in range(TRIED_ALONE):
        if not left:
            return None
        rows = left.popleft()
        try:
            score(rows.feeds)
            return rows
        except tuple(refused):
            left += halves(rows) if rows.num_rows > 1 else ()
    return None


def halves(batch: Batch) -> Tuple[Batch, Batch]:
    middle = batch.num_rows // 2
    return batch.slice(0, middle), batch.slice(middle, batch.num_rows)
