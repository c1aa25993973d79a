"""Rows of different lengths, end to end in one array, and padded only when they are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """n rows of values; slices share memory, as an array's do.

    One long row among thousands then costs its own size, not that of a rectangle around all.

    Attributes:
        values: of all rows.
        offsets: int64[n + 1]; row i is values[offsets[i] : offsets[i + 1]].
    """

    values: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]

    @classmethod
    def of(cls, values: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> Ragged:
        """From how many of the values each row has."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values, offsets)

    @classmethod
    def unpadded(cls, padded: np.ndarray[Any, Any], lengths: np.ndarray[Any, Any]) -> Ragged:
        """The inverse of `padded` and `lengths`."""
        return cls.of(padded[_mask(padded.shape[1], lengths)], lengths)

    @classmethod
    def joined(cls, pieces: Sequence[Ragged]) -> Ragged:
        values = np.concatenate([piece.own_values for piece in pieces])
        return cls.of(values, np.concatenate([piece.lengths for piece in pieces]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: slice) -> Ragged:
        start, stop, _ = rows.indices(len(self))
        return Ragged(self.values, self.offsets[start : max(start, stop) + 1])

    @property
    def lengths(self) -> np.ndarray[Any, Any]:
        return np.diff(self.offsets)

    @property
    def own_values(self) -> np.ndarray[Any, Any]:
        """The values of these rows alone."""
        return self.values[self.offsets[0] : self.offsets[-1]]

    def padded(self) -> np.ndarray[Any, Any]:
        """Shape (n, longest row): zeros, or empty strings, behind each row's values."""
        lengths = self.lengths
        longest = int(lengths.max(initial=0))
        filler: Any = b"" if self.values.dtype == object else 0
        padded = np.full((len(self), longest), filler, self.values.dtype)
        padded[_mask(longest, lengths)] = self.own_values
        return padded

    def repeated(self, num_rows: int) -> Ragged:
        """These rows, and the last one again until there are `num_rows`."""
        last, missing = self[len(self) - 1 :], num_rows - len(self)
        values = np.concatenate([self.own_values, np.tile(last.own_values, missing)])
        return Ragged.of(values, np.concatenate([self.lengths, np.repeat(last.lengths, missing)]))


def _mask(width: int, lengths: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Shape (n, width): where a padded row has values of its own."""
    return np.arange(width) < np.asarray(lengths)[:, np.newaxis]
