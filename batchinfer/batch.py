"""Batches of rows as numpy arrays: padded to the graph's size, cut to exact sizes, put together."""

from __future__ import annotations

from typing import Any

import numpy as np

from batchinfer.errors import InputError


def pad(array: np.ndarray[Any, Any], num_rows: int) -> np.ndarray[Any, Any]:
    """Repeat the last row until the array has `num_rows` rows.

    One leading size for a whole run lets cuDNN choose its algorithms once. The last row is
    repeated, not zeroed: padding then cannot make a NaN.

    Args:
        array: shape (n, ...), 1 <= n <= num_rows.
        num_rows: leading size that the graph is run with, in rows.

    Raises:
        InputError: n is 0 or more than `num_rows`.
    """
    found = len(array)
    if found == num_rows:
        return array
    if not 0 < found < num_rows:
        raise InputError(f"a batch needs 1 to {num_rows} rows; found {found}")
    return np.concatenate([array, np.repeat(array[-1:], num_rows - found, axis=0)])
