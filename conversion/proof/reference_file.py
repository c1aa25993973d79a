"""The user's .npz -> inputs, and outputs where it holds them, checked against the signature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping

import numpy as np

from batchinfer.errors import InputError
from batchinfer.signature import Signature
from conversion.proof.ragged_arrays import ragged_rows
from conversion.proof.strings import as_bytes, without_sizes


@dataclass(frozen=True)
class Arrays:
    """Inputs, and the outputs that the model gave for them; no outputs when it shall be asked."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def read_reference(path: str) -> Arrays:
    """Read an .npz with the keys `inputs/<name>` and `outputs/<name>`, or inputs alone.

    `sizes/inputs/<name>`, one whole number a string, keeps the NUL bytes at the ends of strings.

    Raises:
        InputError: not an .npz, pickled objects in it, other keys, or no inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = without_sizes({key: file[key] for key in file.files})
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"cannot read --reference {path}: expected an .npz of plain arrays: {error}"
        ) from error
    sides: Dict[str, Dict[str, Any]] = {"inputs": {}, "outputs": {}}
    strangers: List[str] = []
    for key, array in arrays.items():
        side, _, name = key.partition("/")
        if side in sides and name:
            sides[side][name] = array
        else:
            strangers.append(key)
    if strangers or not sides["inputs"]:
        raise InputError(
            f"--reference {path}: expected the keys inputs/<name> and outputs/<name>, or inputs "
            f"alone; found {', '.join(sorted(arrays)) or 'none'}"
        )
    return Arrays(**sides)


def check_inputs(reference: Arrays, signature: Signature) -> Dict[str, Any]:
    """The reference's inputs in the dtypes of the signature; more inputs are no harm.

    Raises:
        InputError: an input is missing, has another shape or dtype, or another number of rows.
    """
    problems, arrays = [], {}
    for spec in signature.inputs:
        array = reference.inputs.get(spec.name)
        if array is None:
            problems.append(f"expected inputs/{spec.name}; found {', '.join(reference.inputs)}")
            continue
        fits = array.ndim == len(spec.shape) and all(
            want in (None, have) or spec.lengths is not None
            for want, have in zip(spec.row_shape, array.shape[1:])
        )
        string = spec.dtype == "string"
        fits = fits and string == (array.dtype.kind in "SUO")
        if not fits or not (string or _keeps_values(array, spec.numpy_dtype)):
            problems.append(f"expected {spec}; found {array.dtype}{list(array.shape)}")
        else:
            arrays[spec.name] = as_bytes(array) if string else array.astype(spec.numpy_dtype)
        if spec.lengths is not None and spec.name in arrays:
            try:
                arrays[spec.name] = ragged_rows(spec, arrays[spec.name], reference.inputs)
            except InputError as error:
                problems.append(str(error))
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1 or 0 in rows.values():
        problems.append(
            f"expected the same number of rows, at least 1, in each input; found {rows}"
        )
    if problems:
        raise InputError("the reference does not fit the model:\n  " + "\n  ".join(problems))
    return arrays


def _keeps_values(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """Whether the input's dtype holds what was given: other numbers would prove another model.

    Floats may be rounded to narrower floats, as feeding them would.
    """
    if array.dtype.kind == "f" and dtype.kind == "f":
        return True
    with np.errstate(all="ignore"):
        return bool(np.array_equal(array.astype(dtype).astype(array.dtype), array))
