"""How much of a Parquet file is fetched, and decoded, at once: a footer -> portions of it.

What comes out never depends on it, only the memory that it takes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Iterator, Sequence

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.signature import Signature

READ_ROWS = 4096  # measured best of 4096, 16384 and whole row groups on 64 floats a row
READ_BYTES = 32 << 20  # decoded at once, where rows are large
# Up to so many bytes are fetched whole: in few requests from a store, and from a local disk with
# half the CPU of a stream (measured on 64 floats a row: 0.69 s whole, 1.11 s streamed).
WHOLE_BYTES = 64 << 20
STREAM_BYTES = 8 << 20  # per column, of a row group that is larger: a request of 0.1 s


def fetches(
    footer: pq.FileMetaData, leaves: Sequence[int], first: int, stop: int
) -> Iterator[tuple[list[int], bool]]:
    """Neighbouring row groups of [first, stop) that are fetched together.

    Args:
        leaves: numbers of the leaf columns that are read.

    Returns:
        Row groups of at most 64 MiB together, and False; or one that is larger, and True: it is
        streamed.

    Raises:
        pa.ArrowInvalid: the file has fewer row groups.
    """
    if stop > footer.num_row_groups:
        raise pa.ArrowInvalid(f"expected {stop} row groups, found {footer.num_row_groups}")
    together: list[int] = []
    size = 0
    for number in range(first, stop):
        group = footer.row_group(number)
        found = sum(group.column(leaf).total_compressed_size for leaf in leaves)
        if together and size + found > WHOLE_BYTES:
            yield together, size > WHOLE_BYTES
            together, size = [], 0
        together.append(number)
        size += found
    if together:
        yield together, size > WHOLE_BYTES


def stored_row_bytes(
    footer: pq.FileMetaData, leaves: Sequence[int], row_groups: Sequence[int]
) -> int:
    """Bytes of a row in these columns, uncompressed: the mean of the row group with the largest."""
    groups = [footer.row_group(number) for number in row_groups]
    return max(
        sum(group.column(leaf).total_uncompressed_size for leaf in leaves) // max(1, group.num_rows)
        for group in groups
    )


def read_rows(signature: Signature, stored_bytes: int = 0) -> int:
    """Rows to decode at once: 4096, fewer where a row is large.

    Args:
        stored_bytes: of a row in its file; texts and images have no size in the signature.
    """
    return max(1, min(READ_ROWS, READ_BYTES // max(_fed_bytes(signature), stored_bytes)))


@lru_cache(maxsize=8)
def _fed_bytes(signature: Signature) -> int:
    return sum(
        spec.numpy_dtype.itemsize * max(1, int(np.prod([dim or 1 for dim in spec.row_shape])))
        for spec in signature.inputs
    )
