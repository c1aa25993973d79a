"""The one `import pyarrow`: with the fix for CVE-2023-47248 active before any file is opened.

pyarrow 0.14 to 14.0.0 runs code that a crafted Parquet file carries, when the file is merely
opened. Every process that reads input comes through this door, Ray's workers included.
"""

from __future__ import annotations

import pyarrow as pa

from batchinfer.errors import InputError


def _needs_hotfix(version: str) -> bool:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < (14, 0, 1)


if _needs_hotfix(pa.__version__):
    try:
        import pyarrow_hotfix  # noqa: F401  (importing it unregisters the dangerous type)
    except ImportError as error:
        raise InputError(
            f"pyarrow {pa.__version__} runs code from crafted Parquet files (CVE-2023-47248); "
            "expected pyarrow-hotfix beside it, found none. Install the project's lock file."
        ) from error

import pyarrow.parquet as pq  # noqa: E402

__all__ = ["pa", "parse_footer", "pq"]


def parse_footer(tail: bytes) -> pq.FileMetaData:
    """The footer in the last bytes of a Parquet file.

    By the reader below `pq.ParquetFile`, which also goes through every column in Python:
    3 us each, of files of which only the footer is wanted.
    """
    reader = pq.core.ParquetReader()
    reader.open(pa.BufferReader(tail))
    return reader.metadata
