"""Strings as TensorFlow gives them and as an .npz holds them, in one form."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import numpy as np

from batchinfer.errors import InputError

SIZES = "sizes/"  # before the key of an array of strings


def as_bytes(array: Any) -> Any:
    """An object array of bytes from an array of bytes, str or any of both."""
    texts = [text.encode() if isinstance(text, str) else bytes(text) for text in array.ravel()]
    return np.array(texts, dtype=object).reshape(array.shape)


def storable(array: Any) -> Any:
    """Strings without pickle: fixed-size bytes."""
    return array.astype(np.bytes_) if array.dtype == object else array


def with_sizes(arrays: Mapping[str, Any]) -> Dict[str, Any]:
    """The arrays as an .npz can hold them, with the sizes of strings that end in NUL bytes.

    numpy pads fixed-size bytes with NUL and drops it at the end of what it gives back; a
    serialized proto may end in one, and TensorFlow 1.15 dies of a tf.Example that is cut.
    """
    found = {key: storable(array) for key, array in arrays.items()}
    for key, array in arrays.items():
        if array.dtype == object and any(text.endswith(b"\0") for text in as_bytes(array).ravel()):
            sizes = [len(text) for text in as_bytes(array).ravel()]
            found[SIZES + key] = np.array(sizes, np.int64).reshape(array.shape)
    return found


def without_sizes(arrays: Mapping[str, Any]) -> Dict[str, Any]:
    """The inverse: each array, strings with the NUL bytes that their sizes say.

    Raises:
        InputError: sizes of an array that is not there, of another shape, or too small.
    """
    found = {key: array for key, array in arrays.items() if not key.startswith(SIZES)}
    for key in sorted(set(arrays) - set(found)):
        name, sizes = key[len(SIZES) :], arrays[key]
        array = found.get(name)
        if array is None or array.dtype.kind not in "SU" or array.shape != sizes.shape:
            raise InputError(f"{key}: expected one size for each string of {name}")
        pairs = list(zip(as_bytes(array).ravel(), sizes.ravel().tolist()))
        if any(len(text) > size for text, size in pairs):
            raise InputError(f"{key}: a size is smaller than its string of {name}")
        restored = np.empty(len(pairs), object)
        restored[:] = [text.ljust(size, b"\0") for text, size in pairs]
        found[name] = restored.reshape(array.shape)
    return found
