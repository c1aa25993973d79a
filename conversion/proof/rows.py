"""Rows of a model's inputs, of one shape or of different lengths: taken, joined and fed alike."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

import numpy as np

from batchinfer.batch import Rows
from batchinfer.ragged import Ragged
from batchinfer.signature import TensorSpec


def taken(rows: Rows, numbers: Any) -> Rows:
    """The rows of these numbers, in their order, each as often as it is named."""
    numbers = np.asarray(numbers, np.int64)
    if isinstance(rows, Ragged):
        return Ragged.unpadded(rows.padded()[numbers], rows.lengths[numbers])
    return rows[numbers]


def joined(pieces: Sequence[Rows]) -> Rows:
    if isinstance(pieces[0], Ragged):
        return Ragged.joined(pieces)
    return np.concatenate(pieces)


def fed(spec: TensorSpec, rows: Rows) -> Dict[str, Any]:
    """What the graph of a bundle takes for an input, by tensor name."""
    arrays: List[Any] = [rows]
    if isinstance(rows, Ragged):
        arrays = [rows.padded(), rows.lengths]
    return dict(zip(spec.fed, arrays))
