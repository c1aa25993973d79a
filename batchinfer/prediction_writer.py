"""Predictions and rejected rows -> whole Parquet objects that say what they are."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Iterator, Mapping, Sequence

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.errors import ShardError
from batchinfer.options import COMPRESSIONS
from batchinfer.plan import Shard
from batchinfer.rejects import Rejects
from batchinfer.schema import Columns

ROW_GROUP_ROWS = 65536
ROW_GROUP_BYTES = 16 << 20  # fewer rows where predictions are wide
MOST_INPUTS_NAMED = 64  # in an object's footer; the plan names all


class PredictionWriter:
    """Builds one Parquet object in memory from kept columns and outputs, batch by batch.

    Row groups are cut at fixed rows, so that the batch size never changes what is written.
    """

    def __init__(self, columns: Columns, metadata: Mapping[str, str]) -> None:
        """Begin the object.

        Args:
            columns: what is kept, and the outputs.
            metadata: what the object says about itself.

        Raises:
            ShardError: Parquet has no place for a kept column's type.
        """
        self.num_rows = 0
        self._schema = columns.output_schema
        self._kept = columns.kept
        self._outputs = columns.outputs
        self._group_rows = _row_group_rows(self._outputs.schema)
        self._pending: list[pa.Table] = []
        self._pending_rows = 0
        self._sink = pa.BufferOutputStream()
        with _encoding("predictions"):
            packed = self._outputs.compression
            self._writer = _parquet_writer(self._sink, self._schema, metadata, packed)

    def add(self, kept: Sequence[pa.Table], outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Append rows; all arguments hold the same rows in the same order.

        Raises:
            ShardError: a value cannot be written as Parquet.
        """
        with _encoding("predictions"):
            self._add(kept, outputs)

    def _add(self, kept: Sequence[pa.Table], outputs: Mapping[str, np.ndarray[Any, Any]]) -> None:
        found = self._outputs.columns(outputs)
        arrays = [to_arrow(array, self._schema.field(name).type) for name, array in found.items()]
        table = pa.Table.from_arrays(arrays, names=list(found))
        if self._kept.names:
            both = pa.concat_tables(kept)
            for position, name in enumerate(self._kept.names):
                table = table.add_column(position, self._kept.field(name), both.column(name))
        self._pending.append(table.select(self._schema.names))
        self._pending_rows += table.num_rows
        self.num_rows += table.num_rows
        while self._pending_rows >= self._group_rows:
            self._write(self._group_rows)

    def finish(self) -> pa.Buffer:
        """The whole object, reopened and counted.

        Raises:
            ShardError: a value cannot be written as Parquet, or the object does not hold the rows
                that were added.
        """
        with _encoding("predictions"):
            if self._pending_rows:
                self._write(self._pending_rows)
            self._writer.close()
            data = self._sink.getvalue()
            found = pq.read_metadata(pa.BufferReader(data)).num_rows
        if found != self.num_rows:
            raise ShardError(f"wrote {self.num_rows} rows, the finished object holds {found}")
        return data

    def _write(self, num_rows: int) -> None:
        whole = pa.concat_tables(self._pending)
        self._writer.write_table(whole.slice(0, num_rows).combine_chunks(), row_group_size=num_rows)
        self._pending = [whole.slice(num_rows)]
        self._pending_rows -= num_rows


def rejects_object(rejects: Rejects, metadata: Mapping[str, str]) -> pa.Buffer:
    """One Parquet object of rejected rows: file, row, reason, kept columns.

    Raises:
        ShardError: a value cannot be written as Parquet.
    """
    table, sink = rejects.to_table(), pa.BufferOutputStream()
    with _encoding("rejected rows"), _parquet_writer(sink, table.schema, metadata) as writer:
        writer.write_table(table)
    return sink.getvalue()


def object_metadata(shard: Shard, fingerprint: str) -> dict[str, str]:
    """What an output object says about itself; the same for every attempt."""
    named = shard.segments[:MOST_INPUTS_NAMED]
    inputs = [
        {"url": s.url, "version": s.version, "first_row": s.first_row, "rows": s.num_rows}
        for s in named
    ]
    return {
        "batchinfer.fingerprint": fingerprint,
        "batchinfer.shard": str(shard.index),
        "batchinfer.unit": shard.unit,
        "batchinfer.rows_in": str(shard.num_rows),
        "batchinfer.inputs": json.dumps(inputs, sort_keys=True),
    }


def to_arrow(array: Any, column: pa.DataType) -> pa.Array:
    """A column of n rows as an Arrow array, without copying where it is dense.

    Args:
        array: of shape (n, *row_shape), or an Arrow array already.
    """
    if isinstance(array, pa.Array):
        return array
    types, dims = [column], array.shape
    for _ in dims[1:]:
        types.append(types[-1].value_type)
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.dtype == object:
        leaf = pa.array(list(flat), type=types[-1])
    else:
        leaf = pa.array(flat.astype(types[-1].to_pandas_dtype(), copy=False), type=types[-1])
    for depth in range(len(dims) - 1, 0, -1):
        width = dims[depth]
        if pa.types.is_fixed_size_list(types[depth - 1]):
            leaf = pa.FixedSizeListArray.from_arrays(leaf, width)
        else:
            count = int(np.prod(dims[:depth]))
            offsets = np.arange(0, count * width + 1, width) if width else np.zeros(count + 1)
            leaf = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), leaf)
    return leaf


def _row_group_rows(outputs: pa.Schema) -> int:
    """65,536, fewer where 16 MiB of values at 4 bytes each are reached before; at least 1,024."""
    values = sum(_values(field.type) for field in outputs)
    return max(1024, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // (4 * max(1, values))))


def _values(column: pa.DataType) -> int:
    """Values of a row, counting open lists as one."""
    if pa.types.is_fixed_size_list(column):
        return int(column.list_size or 1) * _values(column.value_type)
    return _values(column.value_type) if pa.types.is_list(column) else 1


def _parquet_writer(
    sink: Any, schema: pa.Schema, metadata: Mapping[str, str], compression: str = COMPRESSIONS[0]
) -> pq.ParquetWriter:
    # Dictionaries of floats cost six times the write and save nothing; texts keep theirs
    # (docs/decisions.md, Output encoding).
    texts = [path for field in schema for path in _text_paths(field.name, field.type)]
    return pq.ParquetWriter(
        sink,
        schema.with_metadata(dict(metadata)),
        use_dictionary=texts or False,
        compression=compression,
        version="2.6",  # the first with nanoseconds; older ones refuse a kept timestamp[ns]
    )


def _text_paths(name: str, column: pa.DataType) -> list[str]:
    """Where Parquet has a column's texts; the name of a list's items differs between pyarrows."""
    if pa.types.is_fixed_size_list(column):
        return [
            path
            for item in ("item", "element")
            for path in _text_paths(f"{name}.list.{item}", column.value_type)
        ]
    return [name] if pa.types.is_string(column) or pa.types.is_large_string(column) else []


@contextlib.contextmanager
def _encoding(what: str) -> Iterator[None]:
    """What Arrow cannot encode is this shard's fault, not its process's."""
    try:
        yield
    except (pa.ArrowException, UnicodeError) as error:
        raise ShardError(f"cannot write the {what} as Parquet: {error}") from error
