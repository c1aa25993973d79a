"""The header of one Parquet page (`PageHeader` of parquet.thrift)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Tuple

from batchinfer.pages.thrift import read_struct

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # PageType
PLAIN, PLAIN_DICTIONARY, RLE, RLE_DICTIONARY = 0, 2, 3, 8  # Encoding


@dataclass(frozen=True)
class PageHeader:
    """What is needed to decode a page.

    Attributes:
        kind: DATA, DICTIONARY, DATA_V2 or another PageType.
        size, stored_size: bytes of the page, uncompressed and as it is stored, header not counted.
        num_values: values, nulls and empty lists counted.
        encoding: of the values.
        level_encodings: of repetition and definition levels; DATA only.
        level_sizes: bytes of both, stored uncompressed before the values; DATA_V2 only.
        num_nulls: DATA_V2 only.
        compressed: whether the values are, where the column is; DATA_V2 only.
    """

    kind: int
    size: int
    stored_size: int
    num_values: int = 0
    encoding: int = -1
    level_encodings: Tuple[int, int] = (RLE, RLE)
    level_sizes: Tuple[int, int] = (0, 0)
    num_nulls: int = 0
    compressed: bool = True


def read_header(data: Any) -> Tuple[PageHeader, int]:
    """The header at the start of `data`, and its length in bytes.

    Raises:
        ValueError, KeyError: it is no page header.
        IndexError: it goes on behind the end of `data`.
    """
    fields, length = read_struct(data)
    kind, size, stored = fields[1], fields[2], fields[3]
    if size < 0 or stored < 0:
        raise ValueError(f"a page of {size} bytes, {stored} stored")
    return PageHeader(kind, size, stored, **_details(kind, fields)), length


def _details(kind: int, fields: Mapping[int, Any]) -> Mapping[str, Any]:
    if kind == DATA:
        data = fields[5]
        return {
            "num_values": data[1],
            "encoding": data[2],
            "level_encodings": (data[4], data[3]),
        }
    if kind == DATA_V2:
        data = fields[8]
        return {
            "num_values": data[1],
            "num_nulls": data[2],
            "encoding": data[4],
            "level_sizes": (data[6], data[5]),
            "compressed": data.get(7, True),
        }
    if kind == DICTIONARY:
        return {"num_values": fields[7][1], "encoding": fields[7][2]}
    return {}
