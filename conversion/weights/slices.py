"""Slices of partitioned variables: what a checkpoint's index says, and TensorFlow's spelling."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Sequence, Tuple

from batchinfer.errors import InputError

Shape = Tuple[int, ...]

_PLAIN = re.compile(rb"([^\0\n][^\n]*?) \(DT_\w+\) \[[^\]\n]*\][^\n]*\n")
_AFTER_KEY = re.compile(rb" \(DT_\w+\) \[[^\]\n]*\]\n")


@dataclass(frozen=True)
class Slice:
    """A box within a tensor.

    Attributes:
        full: the tensor's shape.
        start: the first index in each dimension.
        shape: how many indices in each dimension.
    """

    full: Shape
    start: Shape
    shape: Shape

    @property
    def is_whole(self) -> bool:
        return self.full == self.shape

    def __str__(self) -> str:
        """TensorFlow's `shape_and_slice`, such as `10 4 0,4:0,4`."""
        dims = [f"{start},{size}" for start, size in zip(self.start, self.shape)]
        return " ".join([*map(str, self.full), ":".join(dims)])


def parse_slice(text: str) -> Slice:
    """Read `10 4 0,4:0,4`; `-` stands for all of a dimension.

    Raises:
        ValueError: it is no shape_and_slice of a variable with dimensions.
    """
    *full_text, dims = text.split(" ")
    full = tuple(int(one) for one in full_text)
    parts = dims.split(":")
    if len(parts) != len(full):
        raise ValueError(f"{text!r} is not a shape_and_slice such as '10 4 0,4:0,4'")
    pairs = [
        (0, size) if part == "-" else tuple(map(int, part.split(",")))
        for part, size in zip(parts, full)
    ]
    return Slice(full, tuple(start for start, _ in pairs), tuple(size for _, size in pairs))


def covers(slices: Sequence[Slice]) -> bool:
    """Whether the slices are all of their tensor; a saver never writes two that overlap."""
    return bool(slices) and sum(_volume(one.shape) for one in slices) == _volume(slices[0].full)


def parts_along_axis(full: Shape, shapes: Sequence[Shape]) -> Tuple[Slice, ...]:
    """The slices that parts in this order are of a tensor; () when they do not fill it.

    TensorFlow's partitioners cut along one axis.
    """
    for axis in range(len(full)):
        rest = full[:axis] + full[axis + 1 :]
        fits = all(len(one) == len(full) and one[:axis] + one[axis + 1 :] == rest for one in shapes)
        if fits and sum(one[axis] for one in shapes) == full[axis]:
            starts = [sum(one[axis] for one in shapes[:index]) for index in range(len(shapes))]
            return tuple(
                Slice(full, tuple(start if i == axis else 0 for i in range(len(full))), shape)
                for start, shape in zip(starts, shapes)
            )
    return ()


def axis_of(slices: Sequence[Slice]) -> int:
    """The axis along which slices that fill a tensor follow each other; -1 if not one alone."""
    ordered = sorted(slices, key=lambda one: one.start)
    if not ordered or parts_along_axis(ordered[0].full, [one.shape for one in ordered]) != tuple(
        ordered
    ):
        return -1
    moving = [axis for axis in range(len(ordered[-1].start)) if ordered[-1].start[axis]]
    return moving[0] if moving else 0


def stored_slices(index: bytes, shapes: Dict[str, Sequence[int]]) -> Dict[str, Tuple[Slice, ...]]:
    """The slices in which partitioned variables lie in a checkpoint, by name.

    Neither TF 1.15 nor 2.x has an API for it, but the reader's `debug_string()` lists the keys
    of the index: a slice's key is its name, rank, starts and sizes in OrderedCode
    (tensorflow/core/util/saved_tensor_slice_util.cc).

    Args:
        index: `debug_string()` of a V2 checkpoint.
        shapes: full shape by name.

    Raises:
        InputError: the text is not as expected.
    """
    found: Dict[str, List[Slice]] = {}
    at = 0
    while at < len(index):
        plain = _PLAIN.match(index, at)
        if plain:
            at = plain.end()
            continue
        name, extents, at = _key(index, at)
        full = tuple(shapes.get(name, ()))
        after = _AFTER_KEY.match(index, at)
        if after is None or len(full) != len(extents):
            raise _unreadable(index, at)
        at = after.end()
        sizes = tuple(full[i] if size < 0 else size for i, (_, size) in enumerate(extents))
        found.setdefault(name, []).append(Slice(full, tuple(start for start, _ in extents), sizes))
    return {
        name: tuple(sorted(slices, key=lambda one: one.start)) for name, slices in found.items()
    }


def _unreadable(index: bytes, at: int) -> InputError:
    return InputError(
        "the checkpoint's list of slices cannot be read at "
        f"{index[at : at + 40]!r}; expected entries as TensorFlow 1.15 and 2.x write them"
    )


def _key(index: bytes, at: int) -> Tuple[str, List[Tuple[int, int]], int]:
    """Name and (start, size) per dimension of the slice key at a position; and its end."""
    try:
        if index[at] != 0:
            raise _unreadable(index, at)
        name, position = _string(index, at + 1)
        num_bytes = index[position]
        rank = int.from_bytes(index[position + 1 : position + 1 + num_bytes], "big")
        position += 1 + num_bytes
        numbers: List[int] = []
        for _ in range(2 * rank):
            number, position = _number(index, position)
            numbers.append(number)
        return name, list(zip(numbers[::2], numbers[1::2])), position
    except (IndexError, UnicodeDecodeError) as error:
        raise _unreadable(index, at) from error


def _string(index: bytes, at: int) -> Tuple[str, int]:
    """OrderedCode: 00 FF stands for 00, FF 00 for FF, and 00 01 ends."""
    made = bytearray()
    while index[at : at + 2] != b"\0\1":
        escaped = index[at : at + 2] in (b"\0\xff", b"\xff\0")
        made.append(index[at])
        at += 2 if escaped else 1
        if at >= len(index):
            raise IndexError(at)
    return made.decode(), at + 2


def _number(index: bytes, at: int) -> Tuple[int, int]:
    """OrderedCode: as many leading ones as bytes, then a zero, then the value; 7F is -1."""
    if index[at] == 0x7F:
        return -1, at + 1
    head = int.from_bytes(index[at : at + 2].ljust(2, b"\0"), "big")
    num_bytes = 0
    while num_bytes < 16 and head & (0x8000 >> num_bytes):
        num_bytes += 1
    if not num_bytes or at + num_bytes > len(index):
        raise IndexError(at)
    ones = ((1 << num_bytes) - 1) << (7 * num_bytes)
    return int.from_bytes(index[at : at + num_bytes], "big") ^ ones, at + num_bytes


def _volume(shape: Shape) -> int:
    volume = 1
    for size in shape:
        volume *= size
    return volume
