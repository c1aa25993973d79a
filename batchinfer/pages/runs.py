"""Parquet's hybrid of runs and bit-packed groups: levels that repeat, and indices of a dictionary.

Writers lay levels of equal rows out in equal bytes. So a few runs are decoded, up to the point
where the rows begin anew, and what follows is compared with them byte by byte.
"""

from __future__ import annotations

from typing import Any, Tuple

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
    raw = data.data  # whose items are Python's integers
    position, done, left = 0, 0, _budget(count)
    while done < count:
        begin, begun = position, done
        while done < count:
            left -= 1
            if left < 0:
                raise IrregularError
            position, run = _run(data, raw, position, width)
            run = run[: count - done] if isinstance(run, np.ndarray) else run
            found = len(run) if isinstance(run, np.ndarray) else min(run[0], count - done)
            if not _agrees(run, found, period, (phase + done) % len(period)):
                return False
            done += found
            if (done - begun) % len(period) == 0:
                break
        size, levels = position - begin, done - begun
        repeats = min((count - done) // levels, (len(data) - position) // size)
        same = _equal_blocks(data[begin : position + repeats * size], size) - 1
        position, done = position + same * size, done + same * levels
    return True


def indices(data: Bytes, width: int, count: int) -> np.ndarray[Any, Any]:
    """`count` numbers of `width` bits each, as uint32.

    Raises:
        IrregularError: too many runs, or more than 25 bits.
        IndexError, ValueError: no such runs, or fewer numbers.
    """
    if width > WIDEST:
        raise IrregularError
    found, raw = np.zeros(count, np.uint32), data.data
    position, done, left = 0, 0, _budget(count)
    while done < count and width:
        left -= 1
        if left < 0:
            raise IrregularError
        header, start = read_varint(raw, position)
        if not header & 1:
            position, (run, value) = _repeated(raw, start, width, header >> 1)
            found[done : done + run] = value
            done += run
            continue
        size = start - position + (header >> 1) * width
        if not header >> 1 or start + (header >> 1) * width > len(data):
            raise ValueError("bit-packed values that end behind their page")
        same = _equal_headers(data[position:], size, start - position)
        blocks = data[position : position + same * size].reshape(same, size)
        values = unpack(blocks[:, start - position :], width)[: count - done]
        found[done : done + len(values)] = values
        position, done = position + same * size, done + len(values)
    return found


def unpack(groups: Bytes, width: int) -> np.ndarray[Any, Any]:
    """Numbers of `width` bits, low bits first, eight to each `width` bytes; width 1 to 25.

    Each of the eight is at the same bit of its group, so eight shifts over all groups do it.
    """
    num_groups = groups.size // width
    padded = np.zeros((num_groups, width + 4), np.uint8)
    padded[:, :width] = groups.reshape(num_groups, width)
    found = np.empty((num_groups, 8), np.uint32)
    for place in range(8):
        byte, bit = divmod(place * width, 8)
        words = np.ascontiguousarray(padded[:, byte : byte + 4]).view("<u4")[:, 0]
        np.bitwise_and(words >> np.uint32(bit), np.uint32((1 << width) - 1), out=found[:, place])
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


def _agrees(run: Any, found: int, period: Bytes, phase: int) -> bool:
    expected = np.roll(period, -phase)
    if not isinstance(run, np.ndarray):
        return bool((expected[:found] == run[1]).all())
    return bool((np.resize(expected, found) == run).all())


def _equal_blocks(data: Bytes, size: int) -> int:
    """How many blocks of `size` bytes are equal to the first, itself counted, without a gap."""
    return _leading(data[size:] == data[:-size]) // size + 1


def _equal_headers(data: Bytes, size: int, header_size: int) -> int:
    """How many whole blocks of `size` bytes in a row begin with the header of the first."""
    blocks = data[: len(data) // size * size].reshape(-1, size)
    return _leading((blocks[:, :header_size] == blocks[0, :header_size]).all(axis=1))


def _leading(equal: np.ndarray[Any, Any]) -> int:
    return len(equal) if equal.all() else int(equal.argmin())
