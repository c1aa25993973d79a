"""Parquet footers -> shards: what each output object will hold, and a digest of it all.

A plan is a function of the input alone (never of the cluster), so that a rerun on other
machines finds the same shards.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Iterable, NamedTuple, Optional, Sequence

from batchinfer.arrow import pa, pq
from batchinfer.errors import OutputConflictError

MIB = 1 << 20
SMALLEST_SHARD_BYTES = 1 * MIB  # below this the put of an object costs more than its rows
LARGEST_SHARD_BYTES = 128 * MIB  # one shard is what a crash costs
SHARDS_OF_SMALL_INPUT = 64  # enough for a few dozen actors to finish together

SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("url", pa.string()),
        ("size", pa.int64()),
        ("version", pa.string()),
        ("first_row_group", pa.int64()),
        ("stop_row_group", pa.int64()),
        ("first_row", pa.int64()),
        ("num_rows", pa.int64()),
        ("problem", pa.string()),
    ]
)


class RowGroup(NamedTuple):
    """Rows of one row group, and the bytes of the columns that will be read, uncompressed."""

    num_rows: int
    size_bytes: int


@dataclass(frozen=True)
class InputFile:
    """One Parquet file as it was when it was planned.

    Attributes:
        url: where it lies, as the stores write it.
        size, version: of `ObjectInfo`; another size or version later is another file.
        row_groups: in file order; empty for a file without rows, or whose footer cannot be read.
        problem: why it cannot be scored (unreadable, a column missing), else empty.
        schema: without metadata; None when the footer cannot be read. No part of the plan.
    """

    url: str
    size: int
    version: str
    row_groups: tuple[RowGroup, ...] = ()
    problem: str = ""
    schema: Optional[pa.Schema] = field(default=None, compare=False, repr=False)


class Segment(NamedTuple):
    """Neighbouring row groups of one file: a row of the plan's object, its columns in this order.

    A tuple, because a plan has a hundred thousand: a quarter of a data class's memory and time.

    Attributes:
        first_row_group, stop_row_group: half-open range of row groups.
        first_row: number of the first row in its file, from 0.
        num_rows: rows in the range.
        problem: of the file; its rows then are missing from the output.
    """

    url: str
    size: int
    version: str
    first_row_group: int
    stop_row_group: int
    first_row: int
    num_rows: int
    problem: str = ""


@dataclass(frozen=True)
class Shard:
    """What becomes one output object: segments in input order, possibly of several files."""

    index: int
    segments: tuple[Segment, ...]

    @property
    def num_rows(self) -> int:
        return sum(segment.num_rows for segment in self.segments)

    @property
    def problem(self) -> str:
        """Why it cannot be scored, as it was found when it was planned; else empty."""
        return "; ".join(f"{s.url}: {s.problem}" for s in self.segments if s.problem)

    @property
    def unit(self) -> str:
        """Digest of exactly which rows of which file versions these are (sha256, hex)."""
        known: Optional[str] = self.__dict__.get("_unit")
        return known or self.named([_line(segment) for segment in self.segments])

    def named(self, lines: Sequence[str]) -> str:
        """The unit, from a line per segment; kept, as it is asked for whenever the name is."""
        self.__dict__["_unit"] = unit = hashlib.sha256("".join(lines).encode()).hexdigest()
        return unit


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a run, in input order."""

    shards: tuple[Shard, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256()
        for shard in self.shards:
            lines = [_line(segment) for segment in shard.segments]
            shard.named(lines)  # from the same lines: they take longer than the sums
            digest.update("".join(f"{shard.index}\t{line}" for line in lines).encode())
        object.__setattr__(self, "digest", digest.hexdigest())

    @property
    def num_rows(self) -> int:
        return sum(shard.num_rows for shard in self.shards)

    def files(self) -> dict[str, tuple[int, str]]:
        """Size and version of every planned file, by URL."""
        return {s.url: (s.size, s.version) for shard in self.shards for s in shard.segments}

    def to_parquet(self) -> bytes:
        """The plan as one Parquet object, a row per segment."""
        rows = [(shard.index, *segment) for shard in self.shards for segment in shard.segments]
        columns = zip(*rows) if rows else [()] * len(SCHEMA)
        table = pa.table(
            [pa.array(column, type) for column, type in zip(columns, SCHEMA.types)], schema=SCHEMA
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="snappy")
        return sink.getvalue()

    @classmethod
    def from_parquet(cls, data: bytes) -> ShardPlan:
        """Read back what `to_parquet` wrote."""
        table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
        # By numpy: `to_pylist` makes a scalar of Arrow's for each value, ten times the time.
        indices, *columns = (table.column(name).to_numpy().tolist() for name in SCHEMA.names)
        rows = sorted(zip(indices, map(Segment._make, zip(*columns))), key=itemgetter(0))
        return cls(
            tuple(
                Shard(index, tuple(segment for _, segment in shard_rows))
                for index, shard_rows in groupby(rows, key=itemgetter(0))
            )
        )


def make_plan(files: Sequence[InputFile], shard_bytes: Optional[int] = None) -> ShardPlan:
    """Cut large files between row groups and put small files together.

    Files with a problem become shards of their own, so that they fail alone.

    Args:
        files: in the order in which rows shall stand in the output.
        shard_bytes: uncompressed bytes of the columns read that a shard should have; None is
            1/64 of the input, at least 1 MiB and at most 128 MiB.
    """
    fitting = (file for file in files if not file.problem)
    total = sum(group.size_bytes for file in fitting for group in file.row_groups)
    limit = shard_bytes or min(
        LARGEST_SHARD_BYTES, max(SMALLEST_SHARD_BYTES, total // SHARDS_OF_SMALL_INPUT)
    )
    cuts: list[list[Segment]] = [[]]
    filled = 0
    for file in files:
        for segment, size in _cut(file, limit):
            if cuts[-1] and (filled + size > limit * 1.5 or segment.problem or _failed(cuts[-1])):
                cuts.append([])
                filled = 0
            cuts[-1].append(segment)
            filled += size
            if filled >= limit:
                cuts.append([])
                filled = 0
    return ShardPlan(tuple(Shard(i, tuple(parts)) for i, parts in enumerate(filter(None, cuts))))


def check_unchanged(plan: ShardPlan, found: Iterable[tuple[str, int, str]]) -> None:
    """Compare the planned files with those that lie there now.

    Args:
        found: (url, size, version) of each input file.

    Raises:
        OutputConflictError: files were added, removed or changed; all are listed (20 shown).
    """
    planned, now = plan.files(), {url: (size, version) for url, size, version in found}
    if planned == now:
        return
    lines = [f"added    {url}" for url in sorted(set(now) - set(planned))]
    lines += [f"missing  {url}" for url in sorted(set(planned) - set(now))]
    lines += [
        f"changed  {url}: planned {planned[url][0]} bytes, version {planned[url][1]}; "
        f"found {now[url][0]} bytes, version {now[url][1]}"
        for url in sorted(set(planned) & set(now))
        if planned[url] != now[url]
    ]
    if lines:
        more = [f"... and {len(lines) - 20} more"] if len(lines) > 20 else []
        raise OutputConflictError(
            f"the input is not what this output was started with; {len(lines)} file(s) differ:\n  "
            + "\n  ".join(lines[:20] + more)
            + "\nPut the input back as it was, or score it into another --output."
        )


def _cut(file: InputFile, limit: int) -> Iterable[tuple[Segment, int]]:
    """One file as segments of about `limit` bytes, each with its size; with a problem, as one."""
    if not file.row_groups or file.problem:
        rows = sum(group.num_rows for group in file.row_groups)
        stop = len(file.row_groups)
        yield Segment(file.url, file.size, file.version, 0, stop, 0, rows, file.problem), 0
        return
    start, first_row, size, rows = 0, 0, 0, 0
    for number, group in enumerate(file.row_groups, 1):
        size, rows = size + group.size_bytes, rows + group.num_rows
        if size >= limit or number == len(file.row_groups):
            yield Segment(file.url, file.size, file.version, start, number, first_row, rows), size
            start, first_row, size, rows = number, first_row + rows, 0, 0


def _failed(parts: Sequence[Segment]) -> bool:
    return any(segment.problem for segment in parts)


def _line(segment: Segment) -> str:
    return "\t".join(map(str, segment)) + "\n"
