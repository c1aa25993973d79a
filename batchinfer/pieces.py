"""Rows as they come from files; those of many small files are looked at together.

To check a column, cast it and make it an array costs 0.2 ms, whether it has 100 rows or 4,000.
"""

from __future__ import annotations

from typing import Iterable, Iterator, List, NamedTuple, Sequence

from batchinfer.arrow import pa

ENOUGH_ROWS = 1024  # rows, or bytes, that are not put together with others
ENOUGH_BYTES = 1 << 20


class Piece(NamedTuple):
    """Neighbouring rows of one file.

    Attributes:
        first_row: number of the first one in its file.
    """

    url: str
    first_row: int
    rows: pa.RecordBatch


def merged(pieces: Iterable[Piece]) -> Iterator[List[Piece]]:
    """Neighbouring small pieces with the same columns in one list, in order."""
    held: List[Piece] = []
    num_rows = num_bytes = 0
    for piece in pieces:
        size = piece.rows.nbytes
        small = piece.rows.num_rows < ENOUGH_ROWS and size < ENOUGH_BYTES
        if held and not (small and _alike(held[0], piece)):
            yield held
            held, num_rows, num_bytes = [], 0, 0
        held.append(piece)
        num_rows, num_bytes = num_rows + piece.rows.num_rows, num_bytes + size
        if num_rows >= ENOUGH_ROWS or num_bytes >= ENOUGH_BYTES:
            yield held
            held, num_rows, num_bytes = [], 0, 0
    if held:
        yield held


def together(pieces: Sequence[Piece]) -> pa.RecordBatch:
    """The rows of all pieces, copied into one where there are several."""
    if len(pieces) == 1:
        return pieces[0].rows
    table = pa.Table.from_batches([piece.rows for piece in pieces]).combine_chunks()
    return pa.RecordBatch.from_arrays(
        [column.chunk(0) for column in table.columns], schema=table.schema
    )


def _alike(one: Piece, other: Piece) -> bool:
    """Dictionaries differ from file to file, and are put into values one by one."""
    schema = other.rows.schema
    return bool(
        one.rows.schema.equals(schema)
        and not any(pa.types.is_dictionary(field.type) for field in schema)
    )
