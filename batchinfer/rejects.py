"""Rows that cannot be fed, column by column: where each is, why, and its kept columns."""

from __future__ import annotations

from typing import Sequence

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

    def to_table(self) -> pa.Table:
        """All rows: file, row, reason, kept columns."""
        return pa.concat_tables(self._tables)
