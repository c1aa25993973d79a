"""The footer of a Parquet object, by one small read or two: never the data."""

from __future__ import annotations

import contextlib
from typing import Iterator

from batchinfer.arrow import pa, parse_footer, pq
from batchinfer.errors import ShardError
from batchinfer.storage import ObjectInfo, Store

TAIL_BYTES = 64 * 1024  # what pyarrow reads first as well; most footers fit


def read_footer(store: Store, info: ObjectInfo) -> pq.FileMetaData:
    """The footer of exactly this version of an object.

    Raises:
        pa.ArrowException: it is not a Parquet object.
        ObjectNotFoundError, ObjectChangedError: it is not there, or not this version.
    """
    tail = store.read(info.path, max(0, info.size - TAIL_BYTES), info.size, info.version)
    needed = int.from_bytes(tail[-8:-4], "little") + 8 if tail.endswith(b"PAR1") else 0
    if len(tail) < needed <= info.size:
        tail = store.read(info.path, info.size - needed, info.size, info.version)
    with damage_reported():
        return parse_footer(tail)


def leaves_of(footer: pq.FileMetaData, columns: set[str]) -> list[int]:
    """Numbers of the leaves, such as `x.list.item`, of these columns; names may hold dots too."""
    paths = (footer.schema.column(number).path for number in range(footer.num_columns))
    return [
        number
        for number, path in enumerate(paths)
        if path in columns or any(path.startswith(f"{column}.") for column in columns)
    ]


@contextlib.contextmanager
def damage_reported() -> Iterator[None]:
    """A damaged footer as a `pa.ArrowInvalid`, whichever of its bytes is wrong.

    pyarrow itself raises OSError for Thrift without sense, UnicodeDecodeError for such names.
    """
    try:
        yield
    except pa.ArrowException:
        raise
    except (OSError, ValueError) as error:
        raise pa.ArrowInvalid(str(error)) from error


def read_object_metadata(store: Store, info: ObjectInfo) -> tuple[dict[str, str], int]:
    """The footer's own words and the row count of an output object.

    Raises:
        ShardError: it is not a Parquet object.
    """
    try:
        footer = read_footer(store, info)
    except pa.ArrowException as error:
        raise ShardError(
            f"{store.url(info.path)} is not a whole Parquet object: {error}"
        ) from error
    words = {key.decode(): value.decode() for key, value in (footer.metadata or {}).items()
             if key.startswith(b"batchinfer.")}  # fmt: skip
    return words, footer.num_rows
