"""Batches of rows as numpy arrays: padded to the graph's size, cut to exact sizes, put together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Iterable, Iterator, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from batchinfer.errors import InputError
from batchinfer.ragged import Ragged

Rows = Any  # np.ndarray of shape (n, *row_shape), or Ragged


class Place(NamedTuple):
    """Neighbouring rows of one file: where rows of a batch come from.

    Attributes:
        first_row: number of the first one in its file, from 0.
    """

    url: str
    first_row: int
    num_rows: int


@dataclass(frozen=True)
class Batch:
    """Neighbouring rows of a shard.

    Attributes:
        feeds: per model input, by input name: an array of shape (n, *row_shape), or `Ragged`
            rows where those differ in length.
        kept: the columns that go to the output as they are: Arrow tables that hold n rows.
        num_rows: n.
        places: where the rows come from, n in all and in order; empty where nobody asks.
    """

    feeds: Mapping[str, Rows]
    kept: tuple[Any, ...]
    num_rows: int
    places: Tuple[Place, ...] = ()

    def slice(self, start: int, stop: int) -> Batch:
        """Rows [start, stop) without a copy."""
        feeds = {name: array[start:stop] for name, array in self.feeds.items()}
        kept = tuple(_slice_tables(self.kept, start, stop))
        return Batch(feeds, kept, stop - start, tuple(_slice_places(self.places, start, stop)))


# What the rows of a run are padded to: the whole batch; a batch, a half, a quarter or an eighth of
# one, so that a GPU's libraries choose their algorithms four times and not for each size anew;
# nothing, on a CPU, where a row that is not computed is a row saved.
PADDINGS = ("batch", "halves", "none")


def padded_rows(num_rows: int, batch_rows: int, padding: str) -> int:
    """The rows that the graph is run with for `num_rows` of at most `batch_rows`."""
    if padding == "none":
        return num_rows
    size = batch_rows
    while padding == "halves" and size % 2 == 0 and num_rows <= size // 2 >= batch_rows / 8:
        size //= 2
    return size


def pad(array: Rows, num_rows: int) -> Rows:
    """Repeat the last row until the array has `num_rows` rows.

    One leading size for a whole run lets cuDNN choose its algorithms once. The last row is
    repeated, not zeroed: padding then cannot make a NaN.

    Args:
        array: n rows, 1 <= n <= num_rows.
        num_rows: leading size that the graph is run with, in rows.

    Raises:
        InputError: n is 0 or more than `num_rows`.
    """
    found = len(array)
    if found == num_rows:
        return array
    if not 0 < found < num_rows:
        raise InputError(f"a batch needs 1 to {num_rows} rows; found {found}")
    if isinstance(array, Ragged):
        return array.repeated(num_rows)
    return np.concatenate([array, np.repeat(array[-1:], num_rows - found, axis=0)])


def rebatch(batches: Iterable[Batch], num_rows: int) -> Iterator[Batch]:
    """Cut and join batches to exactly `num_rows` rows each, the last one excepted.

    Rows are copied only where a batch reaches over the edge of a source batch (a row group, a
    file), so that many small files cost no more runs of the model than one large file.
    """
    pending: Deque[Batch] = deque()
    rows = 0
    for batch in batches:
        if batch.num_rows:
            pending.append(batch)
            rows += batch.num_rows
        while rows >= num_rows:
            yield _take(pending, num_rows)
            rows -= num_rows
    if rows:
        yield _take(pending, rows)


def _take(pending: Deque[Batch], num_rows: int) -> Batch:
    """The first `num_rows` rows, removed from `pending`."""
    pieces = []
    missing = num_rows
    while missing:
        first = pending.popleft()
        taken = min(first.num_rows, missing)
        pieces.append(first.slice(0, taken) if taken < first.num_rows else first)
        if taken < first.num_rows:
            pending.appendleft(first.slice(taken, first.num_rows))
        missing -= taken
    return pieces[0] if len(pieces) == 1 else _join(pieces)


def _join(pieces: Sequence[Batch]) -> Batch:
    feeds = {
        name: _concatenated([piece.feeds[name] for piece in pieces]) for name in pieces[0].feeds
    }
    kept = tuple(table for piece in pieces for table in piece.kept)
    places = tuple(place for piece in pieces for place in piece.places)
    return Batch(feeds, kept, sum(piece.num_rows for piece in pieces), places)


def _concatenated(pieces: Sequence[Rows]) -> Rows:
    if isinstance(pieces[0], Ragged):
        return Ragged.joined(pieces)
    return np.concatenate(pieces)


def _slice_tables(tables: Sequence[Any], start: int, stop: int) -> Iterator[Any]:
    for table in tables:
        first, last = max(start, 0), min(stop, table.num_rows)
        if first < last:
            yield table.slice(first, last - first)
        start, stop = start - table.num_rows, stop - table.num_rows


def _slice_places(places: Sequence[Place], start: int, stop: int) -> Iterator[Place]:
    for url, first_row, num_rows in places:
        first, last = max(start, 0), min(stop, num_rows)
        if first < last:
            yield Place(url, first_row + first, last - first)
        start, stop = start - num_rows, stop - num_rows
