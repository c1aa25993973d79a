"""Row groups of a Parquet file -> record batches, streamed: dense lists by their pages."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Callable, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.columns import list_dims
from batchinfer.footer import leaves_of
from batchinfer.pages import DenseColumn, NotDenseError, dense_columns
from batchinfer.pages.dense import byte_range
from batchinfer.pages.window import Window
from batchinfer.read_size import STREAM_BYTES, fetches, read_rows, stored_row_bytes
from batchinfer.schema import Columns

LOG = logging.getLogger("batchinfer")
DENSE_VALUES = 1 << 16  # of a column in a row group; below, pyarrow is done before a page is parsed
Read = Callable[[int, int], Any]
Expect = Callable[[Sequence[Tuple[int, int]], bool], None]


class RowGroups:
    """Reads row groups of one open file.

    Args:
        source: what pyarrow reads; opened once, so that a file replaced meanwhile is not read
            half old, half new.
        read: (start, end) -> bytes of the same file.
        expect: told what will be read next, and whether all of it is wanted at once; None where
            reading costs no waiting.
    """

    def __init__(
        self, source: Any, columns: Columns, read: Read, expect: Optional[Expect] = None
    ) -> None:
        self._source, self._read = source, read
        self._expect = expect
        self._columns, self._names = columns, columns.names
        self._file = pq.ParquetFile(source, pre_buffer=False)
        self._footer = self._file.metadata
        self._leaves = leaves_of(self._footer, set(self._names))

    def batches(self, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        """The columns of row groups [first, stop), in batches of any size.

        Raises:
            pa.ArrowException, OSError: what pyarrow raises for a damaged file.
        """
        footer, leaves = self._footer, self._leaves
        portions = list(fetches(footer, leaves, first, stop))
        for number, (row_groups, streamed) in enumerate(portions):
            self._announce(portions[number + (number > 0) : number + 2])
            num_rows = read_rows(
                self._columns.signature, stored_row_bytes(footer, leaves, row_groups)
            )
            file, dense = self._opened(streamed), self._dense_in(row_groups)
            if dense:
                yield from self._by_pages(file, row_groups, dense, num_rows)
            else:
                yield from self._by_pyarrow(file, row_groups, self._names, num_rows)

    def _announce(self, portions: Sequence[Tuple[List[int], bool]]) -> None:
        """Have portions fetched: the first two, then always the next."""
        if self._expect is None:
            return
        for row_groups, streamed in portions:
            groups = [self._footer.row_group(one) for one in row_groups]
            chunks = (group.column(leaf) for group in groups for leaf in self._leaves)
            self._expect([byte_range(chunk) for chunk in chunks], not streamed)

    def _opened(self, streamed: bool) -> pq.ParquetFile:
        """The file as it is best read: a column at once, of large row groups in pieces."""
        if not streamed:
            return self._file
        return pq.ParquetFile(
            self._source, metadata=self._footer, buffer_size=STREAM_BYTES, pre_buffer=False
        )

    def _dense_in(self, row_groups: Sequence[int]) -> List[DenseColumn]:
        """The columns that are worth it to be read by their pages."""
        rows = sum(self._footer.row_group(number).num_rows for number in row_groups)
        least = DENSE_VALUES * len(row_groups)
        wanted = [
            (self._columns.by_input[spec.name], spec)
            for spec in self._columns.fed
            if spec.lengths is None and spec.dtype != "string" and rows * spec.num_values >= least
        ]
        wanted = [(name, spec) for name, spec in wanted if name not in self._columns.kept.names]
        if not wanted:
            return []
        schema = self._footer.schema.to_arrow_schema()
        dims = [(name, list_dims(schema.field(name).type, spec)) for name, spec in wanted]
        return dense_columns(self._footer, schema, dims)

    def _by_pyarrow(
        self, file: pq.ParquetFile, row_groups: Sequence[int], names: Sequence[str], num_rows: int
    ) -> Iterator[pa.RecordBatch]:
        # use_threads: pyarrow 12 hangs at exit after threaded reads from Python files.
        return file.iter_batches(
            batch_size=num_rows, row_groups=list(row_groups), columns=list(names), use_threads=False
        )

    def _by_pages(
        self,
        file: pq.ParquetFile,
        row_groups: Sequence[int],
        dense: Sequence[DenseColumn],
        num_rows: int,
    ) -> Iterator[pa.RecordBatch]:
        """Row groups as one; from the first row on that is not dense, all of them by pyarrow."""
        others = [name for name in self._names if name not in {column.name for column in dense}]
        left = sum(self._footer.row_group(number).num_rows for number in row_groups)
        streams = [_Rows(c, self._values(c, row_groups)) for c in dense]
        batches = self._by_pyarrow(file, row_groups, others, num_rows) if others else None
        done = 0
        try:
            while done < left:
                batch = next(batches, None) if batches is not None else None
                if others and batch is None:
                    return  # fewer rows than the footer says: the reader of the shard says so
                rows = batch.num_rows if batch is not None else min(num_rows, left - done)
                found = {stream.name: stream.take(rows) for stream in streams}
                if batch is not None:
                    found.update(zip(others, batch.columns))
                yield pa.RecordBatch.from_arrays([found[n] for n in self._names], self._names)
                done += rows
            for stream in streams:
                stream.finish()
        except NotDenseError as error:
            LOG.debug("%s: row groups %s are read by pyarrow", error, row_groups)
            yield from _skip(self._by_pyarrow(file, row_groups, self._names, num_rows), done)

    def _values(
        self, column: DenseColumn, row_groups: Sequence[int]
    ) -> Iterator[np.ndarray[Any, Any]]:
        for number in row_groups:
            chunk = self._footer.row_group(number).column(column.leaf)
            window = Window(self._read, *byte_range(chunk))
            yield from column.values(chunk, window)


class _Rows:
    """Values of a dense column, taken row by row as lists of the file's type."""

    def __init__(self, column: DenseColumn, pieces: Iterator[np.ndarray[Any, Any]]) -> None:
        self.name = column.name
        self._column, self._pieces = column, pieces
        self._values = np.zeros(0, column.dtype)

    def take(self, num_rows: int) -> pa.Array:
        missing, found = num_rows * self._column.width, []
        while missing:
            if not len(self._values):
                self._values = next(self._pieces, None)
                if self._values is None:
                    raise NotDenseError(f"{self.name}: fewer rows than the row group has")
            found.append(self._values[:missing])
            self._values = self._values[missing:]
            missing -= len(found[-1])
        values = found[0] if len(found) == 1 else np.concatenate([self._values[:0], *found])
        return _as_lists(values, self._column)

    def finish(self) -> None:
        """Raise NotDenseError if there is anything left."""
        if len(self._values) or next(self._pieces, None) is not None:
            raise NotDenseError(f"{self.name}: more rows than the row group has")


def _as_lists(values: np.ndarray[Any, Any], column: DenseColumn) -> pa.Array:
    kinds, array = [column.kind], pa.array(values)
    for _ in column.dims[1:]:
        kinds.append(kinds[-1].value_type)
    for kind, width in zip(reversed(kinds), reversed(column.dims)):
        if pa.types.is_fixed_size_list(kind):
            array = pa.FixedSizeListArray.from_arrays(array, width)
        elif pa.types.is_large_list(kind):
            array = pa.LargeListArray.from_arrays(_offsets(len(array), width, "i8"), array)
        else:
            array = pa.ListArray.from_arrays(_offsets(len(array), width, "i4"), array)
    return array


@lru_cache(maxsize=8)
def _offsets(values: int, width: int, dtype: str) -> pa.Array:
    return pa.array(np.arange(0, values + 1, width, dtype=dtype))


def _skip(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The batches without their first `rows` rows."""
    for batch in batches:
        if rows < batch.num_rows:
            yield batch.slice(rows)
        rows = max(0, rows - batch.num_rows)
