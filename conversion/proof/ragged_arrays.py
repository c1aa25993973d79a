"""Rows of different lengths <-> the plain arrays in which an .npz keeps them."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import numpy as np

from batchinfer.errors import InputError
from batchinfer.ragged import Ragged
from batchinfer.signature import TensorSpec

LENGTHS = "/lengths"  # behind the input's name


def ragged_rows(spec: TensorSpec, padded: Any, arrays: Mapping[str, Any]) -> Ragged:
    """The rows of an input from its padded array and, beside it, their lengths.

    Args:
        padded: shape (n, width), in the input's dtype.
        arrays: holds `<name>/lengths`, int[n], each from 0 to the width.

    Raises:
        InputError: no lengths, or others.
    """
    lengths = arrays.get(spec.name + LENGTHS)
    if lengths is None:
        raise InputError(
            f"expected inputs/{spec.name}{LENGTHS} beside inputs/{spec.name}: how many values of "
            "each padded row are its own"
        )
    lengths = np.asarray(lengths)
    most = padded.shape[1] if spec.shape[1] is None else min(padded.shape[1], spec.shape[1])
    fits = lengths.dtype.kind in "iu" and lengths.shape == padded.shape[:1]
    if not fits or (lengths < 0).any() or (lengths > most).any():
        raise InputError(
            f"inputs/{spec.name}{LENGTHS}: expected int64[{len(padded)}] from 0 to {most}; found "
            f"{lengths.dtype}{list(lengths.shape)}"
        )
    return Ragged.unpadded(padded, lengths)


def plain_arrays(name: str, rows: Any) -> Dict[str, Any]:
    """By name: the array itself, or padded rows and their lengths."""
    if isinstance(rows, Ragged):
        return {name: rows.padded(), name + LENGTHS: rows.lengths}
    return {name: rows}
