"""Kept columns: one type each, whatever types they have in which files, and the cast to it."""

from __future__ import annotations

from typing import Mapping, Optional, Sequence

import numpy as np

from batchinfer.arrow import pa
from batchinfer.errors import SchemaError

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
UNITS = ("s", "ms", "us", "ns")


def unify(names: Sequence[str], files: Mapping[pa.Schema, Sequence[str]]) -> pa.Schema:
    """The kept columns with the narrowest types that hold the values of all files.

    One all-null or narrower first file, as pandas writes them, then does not decide for the rest.

    Args:
        names: of the kept columns; each file has each once.
        files: schema -> URLs of the files that have it.

    Raises:
        SchemaError: no type holds all values of a column; all such columns are listed.
    """
    fields, lines = [], []
    for name in names:
        types: dict[pa.DataType, list[str]] = {}
        for schema, urls in files.items():
            types.setdefault(plain(schema.field(name).type), []).extend(urls)
        common: Optional[pa.DataType] = pa.null()
        for found in types:
            common = common and common_type(common, found)
        fields.append(pa.field(name, common or pa.null()))
        if common is None:
            lines += [
                f"{name!r} is {found} in {len(urls)} file(s), such as {urls[0]}"
                for found, urls in types.items()
            ]
    if lines:
        raise SchemaError(
            "files keep columns of types that no one type holds without losing values:\n  "
            + "\n  ".join(lines)
            + "\nWrite the files anew with one type, leave the column out of --keep, or score the "
            "files of each type into an --output of their own."
        )
    return pa.schema(fields)


def common_type(one: pa.DataType, other: pa.DataType) -> Optional[pa.DataType]:
    """The narrowest type that holds all values of both; None where there is none."""
    types, both = pa.types, (one, other)
    if one == other or types.is_null(other):
        return one
    if types.is_null(one):
        return other
    if all(map(types.is_integer, both)):
        return _common_integer(both)
    if all(map(types.is_floating, both)):
        return max(both, key=lambda kind: kind.bit_width)
    if all(types.is_string(kind) or types.is_large_string(kind) for kind in both):
        return pa.large_string()
    if all(types.is_binary(kind) or types.is_large_binary(kind) for kind in both):
        return pa.large_binary()
    if all(map(types.is_timestamp, both)) and one.tz == other.tz:
        return max(both, key=lambda kind: UNITS.index(kind.unit))
    if all(types.is_list(kind) or types.is_large_list(kind) for kind in both):
        return _common_list(both)
    return None


def plain(column: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding, which differs from file to file and says nothing."""
    return column.value_type if pa.types.is_dictionary(column) else column


def cast_column(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """A kept column of one file with the type that it has in the output.

    Raises:
        pa.ArrowException: a value cannot be held, such as the year 2300 in nanoseconds.
    """
    array = column_of(batch, field.name)
    return array if array.type == field.type else array.cast(field.type)


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column with its dictionary, if it has one, put into its values."""
    array = batch.column(batch.schema.get_field_index(name))
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _common_integer(both: tuple[pa.DataType, pa.DataType]) -> Optional[pa.DataType]:
    limits = [np.iinfo(kind.to_pandas_dtype()) for kind in both]
    low, high = min(int(limit.min) for limit in limits), max(int(limit.max) for limit in limits)
    for name in INTEGERS:
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return pa.from_numpy_dtype(np.dtype(name))
    return None  # uint64 with a signed one


def _common_list(both: tuple[pa.DataType, pa.DataType]) -> Optional[pa.DataType]:
    values = common_type(*(plain(kind.value_type) for kind in both))
    if values is None:
        return None
    large = any(map(pa.types.is_large_list, both))
    nullable = any(kind.value_field.nullable for kind in both)
    item = pa.field(both[0].value_field.name, values, nullable)
    return pa.large_list(item) if large else pa.list_(item)
