"""Rows that cannot be fed, column by column: where each is, why, and its kept columns."""

from __future__ import annotations

from typing import Sequence, Tuple

import numpy as np

from batchinfer.arrow import pa

REJECTS_COLUMNS = ("_file", "_row", "_reason")  # beside the kept columns of a rejected row
TYPES = (pa.string(), pa.int64(), pa.string())


class Rejects:
    """The rejected rows of one shard, in input order.

    Args:
        kept: schema of the kept columns.
    """

    def __init__(self, kept: pa.Schema) -> None:
        self.num_rows = 0
        self._schema = pa.schema([*zip(REJECTS_COLUMNS, TYPES), *kept])
        self._tables = [self._schema.empty_table()]

    def add(self, url: str, rows: Sequence[int], reasons: Sequence[str], kept: pa.Table) -> None:
        """Append rows of one file.

        Args:
            rows: row numbers in the file, from 0.
            reasons: one per row.
            kept: the kept columns of exactly these rows; without columns, any table.
        """
        columns = [pa.array([url] * len(rows), TYPES[0]), pa.array(rows, TYPES[1])]
        columns += [pa.array(reasons, TYPES[2]), *kept.columns]
        self._tables.append(pa.table(columns, schema=self._schema))
        self.num_rows += len(rows)

    def joined(self, other: Rejects, urls: Sequence[str]) -> Rejects:
        """Those of both, in input order.

        Args:
            urls: the files in that order.
        """
        found = pa.concat_tables([*self._tables, *other._tables])
        number = {url: place for place, url in reversed(list(enumerate(urls)))}
        files = [number[url] for url in found.column(0).to_pylist()]
        both = Rejects(pa.schema(list(self._schema)[len(TYPES) :]))
        order = np.lexsort([found.column(1).to_numpy(), np.array(files, np.int64)])
        both._tables = [found.take(pa.array(order))]
        both.num_rows = self.num_rows + other.num_rows
        return both

    def first(self) -> Tuple[str, int, str]:
        """File, row and reason of the one that was added first."""
        row = next(table for table in self._tables if table.num_rows).slice(0, 1)
        url, number, reason = (row.column(name)[0].as_py() for name in REJECTS_COLUMNS)
        return url, number, reason

    def to_table(self) -> pa.Table:
        """All rows: file, row, reason, kept columns."""
        return pa.concat_tables(self._tables)
