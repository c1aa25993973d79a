"""A shard's row groups -> batches of feeds, streamed; rows that cannot be fed are set apart."""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from batchinfer.arrow import pa
from batchinfer.batch import Batch, Place
from batchinfer.columns import bad_rows, to_rows
from batchinfer.errors import ShardError
from batchinfer.kept import cast_column, column_of
from batchinfer.pieces import Piece, merged, together
from batchinfer.plan import Segment, Shard
from batchinfer.preprocess import Feeder
from batchinfer.record_batches import RowGroups
from batchinfer.rejects import Rejects
from batchinfer.schema import Columns
from batchinfer.storage import ObjectInfo, Store
from batchinfer.storage.prefetched import Prefetched

FETCH_THREADS = 8  # requests at once for one file: 700 MB/s from an object store, where a node can
NULL_IN_FIXED_SIZE_LIST = "Expected all lists to be of size"  # in the message of pyarrow 12


@dataclass
class ShardReader:
    """Iterates a shard's batches in input order; rows that cannot be fed go to `rejects`.

    Attributes:
        open_store: URL -> store and path, to open each file with.
        rejects: filled while iterating; complete when the iteration ends.
    """

    shard: Shard
    columns: Columns
    open_store: Callable[[str], tuple[Store, str]]
    rejects: Rejects = field(init=False)

    def __post_init__(self) -> None:
        self.rejects = Rejects(self.columns.kept)
        hook = self.columns.preprocess
        self._feeder = Feeder(hook, self.columns.signature.inputs) if hook else None

    def __iter__(self) -> Iterator[Batch]:
        """Batches of any size.

        Raises:
            ShardError: a file is unreadable, or has other rows than were planned.
            ObjectChangedError, ObjectNotFoundError: a file is not the planned version.
        """
        for pieces in merged(self._pieces()):
            yield self._batch(pieces)

    def _pieces(self) -> Iterator[Piece]:
        for segment in self.shard.segments:
            if segment.problem:
                raise ShardError(f"{segment.url}: {segment.problem}")
            if segment.num_rows:
                yield from self._segment(segment)

    def _segment(self, segment: Segment) -> Iterator[Piece]:
        row = segment.first_row
        for record_batch in self._record_batches(segment):
            yield Piece(segment.url, row, record_batch)
            row += record_batch.num_rows
        if row != segment.first_row + segment.num_rows:
            raise ShardError(
                f"{segment.url}: expected {segment.num_rows} rows in row groups "
                f"[{segment.first_row_group}, {segment.stop_row_group}), "
                f"read {row - segment.first_row}"
            )

    def _record_batches(self, segment: Segment) -> Iterator[pa.RecordBatch]:
        store, path = self.open_store(segment.url)
        found = store.open_input(ObjectInfo(path, segment.size, segment.version))
        try:
            with contextlib.ExitStack() as stack:
                groups = self._opened(found, stack)
                yield from groups.batches(segment.first_row_group, segment.stop_row_group)
        except (pa.ArrowException, OSError) as error:
            raise ShardError(f"{segment.url}: cannot read: {error}{_advice(error)}") from error

    def _opened(self, found: Any, stack: contextlib.ExitStack) -> RowGroups:
        if isinstance(found, str):
            source = stack.enter_context(pa.OSFile(found))

            def read(start: int, end: int) -> Any:
                source.seek(start)
                return source.read_buffer(end - start)

            return RowGroups(source, self.columns, read)
        pool = stack.enter_context(ThreadPoolExecutor(FETCH_THREADS))
        ahead = stack.enter_context(Prefetched(found, pool))
        return RowGroups(ahead, self.columns, ahead.read_range, ahead.expect)

    def _batch(self, pieces: Sequence[Piece]) -> Batch:
        columns, found = self.columns, together(pieces)
        feeds, bad = self._feeder.feeds(found) if self._feeder else ({}, {})
        for spec in columns.fed:
            array = column_of(found, columns.by_input[spec.name])
            for row, why in bad_rows(array, spec).items():
                bad.setdefault(row, f"{columns.by_input[spec.name]}: {why}")
        kept, places = self._kept(pieces, found), tuple(_places(pieces, sorted(bad)))
        if bad:
            mask = np.zeros(found.num_rows, dtype=bool)
            mask[list(bad)] = True
            self._reject(pieces, mask, bad, kept)
            found = found.filter(pa.array(~mask))
            kept = kept.filter(pa.array(~mask)) if kept.num_columns else kept
        for spec in columns.fed:
            feeds[spec.name] = to_rows(column_of(found, columns.by_input[spec.name]), spec)
        return Batch(feeds, (kept,) if columns.kept.names else (), found.num_rows, places)

    def _reject(
        self, pieces: Sequence[Piece], mask: np.ndarray[Any, Any], bad: dict[int, str], kept: Any
    ) -> None:
        """Set rows apart, each under the file that it is from."""
        start = 0
        for piece in pieces:
            stop = start + piece.rows.num_rows
            rows = np.flatnonzero(mask[start:stop])
            if len(rows):
                reasons = [bad[start + row] for row in rows.tolist()]
                rejected = kept.take(pa.array(rows + start)) if kept.num_columns else kept
                self.rejects.add(piece.url, rows + piece.first_row, reasons, rejected)
            start = stop

    def _kept(self, pieces: Sequence[Piece], found: pa.RecordBatch) -> pa.Table:
        kept = self.columns.kept
        try:
            return pa.table([cast_column(found, field) for field in kept], schema=kept)
        except pa.ArrowException as error:
            if len(pieces) > 1:  # one of them is to blame
                for piece in pieces:
                    self._kept([piece], piece.rows)
            raise ShardError(f"{pieces[0].url}: cannot keep what it holds: {error}") from error


def _places(pieces: Sequence[Piece], bad: Sequence[int]) -> Iterator[Place]:
    """Where the rows come from that are not bad; `bad` counts through all pieces."""
    left, before = deque(bad), 0
    for piece in pieces:
        start, num_rows = 0, piece.rows.num_rows
        while start < num_rows:
            stop = min(left[0] - before, num_rows) if left else num_rows
            if start < stop:
                yield Place(piece.url, piece.first_row + start, stop - start)
            if stop < num_rows:
                left.popleft()
            start = stop + 1
        before += num_rows


def _advice(error: BaseException) -> str:
    if NULL_IN_FIXED_SIZE_LIST not in str(error):
        return ""
    return (
        f". pyarrow {pa.__version__} cannot read a fixed_size_list column with a null (26 can): "
        "write it as a list column, and the rows without a value are rejected one by one"
    )
