"""Parquet's hybrid of runs and bit-packed groups: levels that repeat, and indices of a dictionary.

Writers lay levels of equal rows out in equal bytes. So a few runs are decoded, up to the point
where the rows begin anew, and what follows is compared with them byte by byte.
"""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np

from batchinfer.pages.thrift import read_varint

Bytes = Any  # np.ndarray of uint8, one dimension
WIDEST = 25  # bits of an index that four bytes hold whatever bit it begins at


class IrregularError(Exception):
    """More runs than pay off one by one."""


def levels_repeat(data: Bytes, width: int, period: Bytes, phase: int, count: int) -> bool:
    """Whether `count` levels are exactly `period`, repeated, from its position `phase` on.

    Args:
        data: hybrid runs of `width` bits a level.

    Raises:
        IrregularError: too many runs; nothing is known.
        IndexError, ValueError: no such runs.
    """
    raw, twice = data.data, np.concatenate([period, period])  # raw's items are Python's integers
    position, done, left = 0, 0, _budget(count)
    while done < count:
        begin, begun = position, done
        while done < count:
            left -= 1
            if left < 0:
                raise IrregularError
            position, run = _run(data, raw, position, width)
            found = min(run[0] if isinstance(run, tuple) else len(run), count - done)
            place = (phase + done) % len(period)
            if not _agrees(run, found, twice[place : place + len(period)]):
                return False
            done += found
            if (done - begun) % len(period) == 0 or (phase + done) % len(period) == 0:
                break
        if (done - begun) % len(period):
            continue  # rows began within the page: runs repeat from the first whole one on
        size, levels = position - begin, done - begun
        repeats = min((count - done) // levels, (len(data) - position) // size)
        same = _equal_blocks(data[begin : position + repeats * size], size) - 1
        position, done = position + same * size, done + same * levels
    return True


def indices(data: Bytes, width: int, count: int) -> np.ndarray[Any, Any]:
    """`count` numbers of `width` bits each, unsigned.

    Raises:
        IrregularError: too many runs, or more than 25 bits.
        IndexError, ValueError: no such runs, or fewer numbers.
    """
    if width > WIDEST:
        raise IrregularError
    if not width:
        return np.zeros(count, np.uint8)
    repeated, packed = _parsed(data, width, count)
    groups = [blocks.reshape(-1) for _, blocks in packed]
    values = unpack(groups[0] if len(groups) == 1 else np.concatenate(groups), width)
    if not repeated:
        return values[:count]
    found, done = np.empty(count, values.dtype), 0
    for place, blocks in packed:
        piece = values[done : done + blocks.size * 8 // width]
        found[place : place + len(piece)] = piece[: count - place]
        done += len(piece)
    for place, times, value in repeated:
        found[place : place + times] = value
    return found


def _parsed(
    data: Bytes, width: int, count: int
) -> Tuple[List[Tuple[int, int, int]], List[Tuple[int, Bytes]]]:
    """Where each run belongs: (place, times, value) of equal ones, (place, groups) of packed ones.

    Of packed ones there is always one, be it empty.
    """
    raw, repeated, packed = data.data, [], []
    position, done, left = 0, 0, _budget(count)
    while done < count:
        left -= 1
        if left < 0:
            raise IrregularError
        header, start = read_varint(raw, position)
        groups = header >> 1
        if not header & 1:
            position, (times, value) = _repeated(raw, start, width, groups)
            repeated.append((done, times, value))
            done += times
            continue
        size = start - position + groups * width
        if not groups or position + size > len(data):
            raise ValueError("bit-packed values that end behind their page")
        same = 1
        if raw[position:start] == raw[position + size : start + size]:
            same = _equal_headers(data[position:], size, start - position)
        blocks = data[position : position + same * size].reshape(same, size)
        packed.append((done, blocks[:, start - position :]))
        position, done = position + same * size, done + same * groups * 8
    return repeated, packed or [(0, data[:0])]


def unpack(groups: Bytes, width: int) -> np.ndarray[Any, Any]:
    """Numbers of `width` bits, low bits first, eight to each `width` bytes; width 1 to 25.

    Each of the eight is at the same bit of its group, so eight shifts over all groups do it. Up to
    16 bits, four of them lie in one word of eight bytes.
    """
    if width == 1:
        return np.unpackbits(groups.reshape(-1), bitorder="little")
    if width in (8, 16):
        return groups.reshape(-1).view(f"<u{width // 8}")
    num_groups = groups.size // width
    kind, each = (np.dtype("<u8"), 4) if width <= 16 else (np.dtype("<u4"), 1)
    padded = np.zeros((num_groups, width + kind.itemsize), np.uint8)
    padded[:, :width] = groups.reshape(num_groups, width)
    found = np.empty((num_groups, 8), np.uint16 if width <= 16 else np.uint32)
    mask = kind.type((1 << width) - 1)
    for first in range(0, 8, each):
        byte, bit = divmod(first * width, 8)
        words = np.ascontiguousarray(padded[:, byte : byte + kind.itemsize]).view(kind)[:, 0]
        for place in range(each):
            found[:, first + place] = words >> kind.type(bit + place * width) & mask
    return found.reshape(-1)


def _budget(count: int) -> int:
    """Runs that may be looked at one by one: each takes about what pyarrow takes for 300 values."""
    return 64 + count // 300


def _run(data: Bytes, raw: memoryview, position: int, width: int) -> Tuple[int, Any]:
    """The position behind a run, and its levels: an array, or (how many, which)."""
    header, position = read_varint(raw, position)
    if not header & 1:
        return _repeated(raw, position, width, header >> 1)
    size = (header >> 1) * width
    if not size or position + size > len(data):
        raise ValueError("bit-packed levels that end behind their page")
    return position + size, unpack(data[position : position + size], width)


def _repeated(
    raw: memoryview, position: int, width: int, times: int
) -> Tuple[int, Tuple[int, int]]:
    size = (width + 7) // 8
    if not times or position + size > len(raw):
        raise ValueError("an empty run, or one that ends behind its page")
    return position + size, (times, int.from_bytes(raw[position : position + size], "little"))


def _agrees(run: Any, found: int, expected: Bytes) -> bool:
    """Whether the first `found` levels of a run are the period that begins where it does."""
    if isinstance(run, tuple):
        return bool((expected[:found] == run[1]).all())
    if found <= len(expected):
        return bool((expected[:found] == run[:found]).all())
    return bool((np.resize(expected, found) == run[:found]).all())


def _equal_blocks(data: Bytes, size: int) -> int:
    """How many blocks of `size` bytes are equal to the first, itself counted, without a gap."""
    return _leading(data[size:] == data[:-size]) // size + 1


def _equal_headers(data: Bytes, size: int, header_size: int) -> int:
    """How many whole blocks of `size` bytes in a row begin with the header of the first."""
    blocks = data[: len(data) // size * size].reshape(-1, size)
    return _leading((blocks[:, :header_size] == blocks[0, :header_size]).all(axis=1))


def _leading(equal: np.ndarray[Any, Any]) -> int:
    return len(equal) if equal.all() else int(equal.argmin())
