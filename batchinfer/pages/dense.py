"""A list column whose rows all have one length -> its values, page by page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.pages import header as pages
from batchinfer.pages.header import PageHeader, read_header
from batchinfer.pages.runs import IrregularError, indices, levels_repeat
from batchinfer.pages.window import Window

PHYSICAL = {"<i4": "INT32", "<i8": "INT64", "<f4": "FLOAT", "<f8": "DOUBLE"}
CODECS = {"UNCOMPRESSED": None, "SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd"}
HEADER_BYTES = 1 << 10  # peeked first; statistics of long texts are not in these columns
LARGEST_HEADER_BYTES = 1 << 16
DAMAGE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, OSError,
    pa.ArrowException,
)  # fmt: skip


class NotDenseError(Exception):
    """Rows of other lengths, nulls, an encoding that is not read here, or damage: ask pyarrow."""


@dataclass(frozen=True)
class DenseColumn:
    """A column that may be dense, by what the footer says.

    Attributes:
        leaf: number of its only leaf.
        dims: length of each list level, outermost first.
        kind: Arrow's type of the lists.
        dtype, stored: of the values, as they are given and as the file stores them.
        levels: highest repetition and definition level.
    """

    name: str
    leaf: int
    dims: Tuple[int, ...]
    kind: pa.DataType
    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    levels: Tuple[int, int]

    @property
    def width(self) -> int:
        """Values of a row."""
        return int(np.prod(self.dims))

    def period(self) -> np.ndarray[Any, Any]:
        """The repetition levels of one row."""
        found = np.full(self.width, len(self.dims), np.uint8)
        for level in reversed(range(len(self.dims))):
            found[:: int(np.prod(self.dims[level:]))] = level
        return found

    def values(
        self, chunk: pq.ColumnChunkMetaData, window: Window
    ) -> Iterator[np.ndarray[Any, Any]]:
        """The values of a row group, as many at a time as a page holds.

        Args:
            chunk: this column in that row group.
            window: over its `byte_range`.

        Raises:
            NotDenseError: not every row has `dims` values; some may have been given before.
        """
        codec = CODECS.get(chunk.compression, chunk.compression.lower())
        try:
            yield from _Decoder(self, codec, chunk.num_values).pages(window)
        except DAMAGE as error:
            raise NotDenseError(f"{self.name}: {error}") from error
        except IrregularError as error:
            raise NotDenseError(f"{self.name}: irregular runs") from error


def byte_range(chunk: pq.ColumnChunkMetaData) -> Tuple[int, int]:
    """Where a column chunk lies in its file, half open."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    return start, start + chunk.total_compressed_size


def dense_columns(
    footer: pq.FileMetaData, schema: pa.Schema, wanted: Sequence[Tuple[str, Tuple[int, ...]]]
) -> List[DenseColumn]:
    """Those of the wanted columns that are lists of plain numbers in one leaf.

    Args:
        wanted: names, and the length that each list level must have.
    """
    found = [_dense(footer, schema, name, dims) for name, dims in wanted]
    return [column for column in found if column is not None]


def _dense(
    footer: pq.FileMetaData, schema: pa.Schema, name: str, dims: Tuple[int, ...]
) -> Optional[DenseColumn]:
    kind = leaf_kind = schema.field(name).type
    depth = 0
    while is_list(leaf_kind):
        leaf_kind, depth = leaf_kind.value_type, depth + 1
    types = pa.types
    plain = (
        types.is_integer(leaf_kind) or types.is_float32(leaf_kind) or types.is_float64(leaf_kind)
    )
    if not (plain and depth and depth == len(dims) and min(dims) > 0):
        return None
    dtype = np.dtype(leaf_kind.to_pandas_dtype())
    leaves = [
        number
        for number in range(footer.num_columns)
        if footer.schema.column(number).path.startswith(f"{name}.")
    ]
    leaf = footer.schema.column(leaves[0]) if len(leaves) == 1 else None
    if leaf is None or leaf.max_repetition_level != depth:
        return None
    stored = _stored(dtype)
    if leaf.physical_type != PHYSICAL[stored.str]:
        return None  # such as uint32 in INT64, as Parquet 1.0 has it
    levels = (leaf.max_repetition_level, leaf.max_definition_level)
    return DenseColumn(name, leaves[0], dims, kind, dtype, stored, levels)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Floats as they are, small integers in 32 bits, signed or not."""
    if dtype.kind == "f":
        return dtype.newbyteorder("<")
    return np.dtype("<i8" if dtype.itemsize == 8 else "<i4")


def is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


class _Decoder:
    """The pages of one column chunk, in order."""

    def __init__(self, column: DenseColumn, codec: Optional[str], num_values: int) -> None:
        self._column, self._codec, self._left = column, codec, num_values
        self._period = column.period()
        self._phase = 0
        self._dictionary: Optional[np.ndarray[Any, Any]] = None

    def pages(self, window: Window) -> Iterator[np.ndarray[Any, Any]]:
        while self._left > 0:
            header = _take_header(window)
            body = window.take(header.stored_size)
            if header.kind == pages.DICTIONARY:
                self._dictionary = self._plain(self._opened(body, header.size), header.num_values)
            elif header.kind == pages.DATA:
                yield self._data(header, body)
            elif header.kind == pages.DATA_V2:
                yield self._data_v2(header, body)
        if self._phase or self._left:
            raise NotDenseError(f"{self._column.name}: a row of fewer values")

    def _data(self, header: PageHeader, body: memoryview) -> np.ndarray[Any, Any]:
        if header.level_encodings != (pages.RLE, pages.RLE):
            raise NotDenseError(f"{self._column.name}: levels of encoding {header.level_encodings}")
        data, levels = self._opened(body, header.size), []
        for _ in self._column.levels:
            size = int.from_bytes(data[:4].tobytes(), "little")
            if 4 + size > len(data):
                raise ValueError("levels that end behind their page")
            levels.append(data[4 : 4 + size])
            data = data[4 + size :]
        self._check(levels, header.num_values)
        return self._decoded(header, data)

    def _data_v2(self, header: PageHeader, body: memoryview) -> np.ndarray[Any, Any]:
        repetition, definition = header.level_sizes
        values = repetition + definition
        if header.num_nulls or min(repetition, definition) < 0 or values > len(body):
            raise NotDenseError(f"{self._column.name}: {header.num_nulls} nulls")
        raw = np.frombuffer(body, np.uint8)
        self._check([raw[:repetition], raw[repetition:values]], header.num_values)
        data = raw[values:]
        if header.compressed:
            data = self._opened(body[values:], header.size - values)
        return self._decoded(header, data)

    def _check(self, levels: Sequence[np.ndarray[Any, Any]], count: int) -> None:
        """Every row begins where it should, and nothing is null or empty."""
        repetition, definition = self._column.levels
        if not 0 < count <= self._left:
            raise ValueError(f"a page of {count} values where {self._left} are left")
        whole = levels_repeat(
            levels[0], repetition.bit_length(), self._period, self._phase, count
        ) and levels_repeat(
            levels[1], definition.bit_length(), np.full(1, definition, np.uint8), 0, count
        )
        if not whole:
            raise NotDenseError(f"{self._column.name}: rows of other lengths, or nulls")
        self._left -= count
        self._phase = (self._phase + count) % self._column.width

    def _decoded(self, header: PageHeader, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if header.encoding == pages.PLAIN:
            return self._plain(data, header.num_values)
        if header.encoding not in (pages.RLE_DICTIONARY, pages.PLAIN_DICTIONARY):
            raise NotDenseError(f"{self._column.name}: encoding {header.encoding}")
        if self._dictionary is None or not len(data):
            raise ValueError("a page before its dictionary")
        found = indices(data[1:], int(data[0]), header.num_values)
        # A third of what `take` takes, which widens the indices first; they are checked as well.
        coded = pa.DictionaryArray.from_arrays(pa.array(found), pa.array(self._dictionary))
        return coded.dictionary_decode().to_numpy()

    def _plain(self, data: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
        stored = self._column.stored
        if count < 0 or len(data) != count * stored.itemsize:
            raise ValueError(f"expected {count} values, found {len(data)} bytes")
        # Levels of any number of bytes stand before them, and Arrow expects aligned values.
        return np.require(
            data.view(stored).astype(self._column.dtype, copy=False), requirements="A"
        )

    def _opened(self, body: memoryview, size: int) -> np.ndarray[Any, Any]:
        if self._codec is None:
            return np.frombuffer(body, np.uint8)
        if not size:
            return np.zeros(0, np.uint8)
        return np.frombuffer(pa.decompress(body, size, self._codec), np.uint8)


def _take_header(window: Window) -> PageHeader:
    size = HEADER_BYTES
    while True:
        try:
            header, length = read_header(window.peek(size))
        except IndexError:
            if size >= LARGEST_HEADER_BYTES:
                raise
            size = LARGEST_HEADER_BYTES
            continue
        window.skip(length)
        return header
