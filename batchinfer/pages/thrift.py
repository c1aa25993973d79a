"""Thrift's compact protocol, as far as a page header needs it: bytes -> {field number: value}."""

from __future__ import annotations

from typing import Any, Dict, Tuple

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
DEEPEST = 8  # a page header is three deep


def read_struct(data: Any, start: int = 0, depth: int = 0) -> Tuple[Dict[int, Any], int]:
    """One struct and the position behind it; nested structs are dicts, binaries their bytes.

    Args:
        data: bytes or a memoryview of bytes.

    Raises:
        ValueError: it is no such struct.
        IndexError: it goes on behind the end of `data`.
    """
    if depth > DEEPEST:
        raise ValueError("a struct deeper than any in Parquet")
    fields: Dict[int, Any] = {}
    number, position = 0, start
    while True:
        head = data[position]
        position += 1
        if head == STOP:
            return fields, position
        kind, delta = head & 0x0F, head >> 4
        if delta:
            number += delta
        else:
            number, position = _zigzag(data, position)
        fields[number], position = _value(data, position, kind, depth)


def read_varint(data: Any, position: int) -> Tuple[int, int]:
    """An unsigned number of 7 bits a byte, low bits first, and the position behind it."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _zigzag(data: Any, position: int) -> Tuple[int, int]:
    value, position = read_varint(data, position)
    return (value >> 1) ^ -(value & 1), position


def _value(data: Any, position: int, kind: int, depth: int) -> Tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, position
    if kind in (I16, I32, I64):
        return _zigzag(data, position)
    if kind == BINARY:
        size, position = read_varint(data, position)
        if position + size > len(data):
            raise IndexError("a text that ends behind the data")
        return bytes(data[position : position + size]), position + size
    if kind == STRUCT:
        return read_struct(data, position, depth + 1)
    if kind == BYTE:
        return data[position], position + 1
    if kind == DOUBLE:
        return None, position + 8  # nothing in a page header that matters here
    raise ValueError(f"a field of Thrift type {kind} in a page header")
