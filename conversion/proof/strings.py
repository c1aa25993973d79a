"""Strings as TensorFlow gives them and as an .npz holds them, in one form."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_bytes(array: Any) -> Any:
    """An object array of bytes from an array of bytes, str or any of both."""
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape)


def storable(array: Any) -> Any:
    """Strings without pickle: fixed-size bytes."""
    return array.astype(np.bytes_) if array.dtype == object else array
