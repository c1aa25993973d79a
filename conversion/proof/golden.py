"""The inputs and reference outputs inside a bundle, so that any machine can verify it again."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping

import numpy as np

from batchinfer.bundle import GOLDEN, Bundle
from batchinfer.errors import InputError
from conversion.proof.ragged_arrays import plain_arrays
from conversion.proof.reference_file import Arrays, read_reference
from conversion.proof.strings import storable, with_sizes

MAX_ROWS = 64
MAX_BYTES = 32 << 20  # of inputs and outputs together


def write_golden(folder: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> int:
    """Store the first rows, `MAX_ROWS` or `MAX_BYTES` at most but one row at least; how many.

    The worst row of the report may not be among them.
    """
    plain: Dict[str, Any] = {}
    for name, array in inputs.items():
        plain.update(plain_arrays(name, array))
    rows = _rows_kept([*plain.values(), *outputs.values()])
    golden = {f"inputs/{name}": array[:rows] for name, array in plain.items()}
    golden.update({f"outputs/{name}": array[:rows] for name, array in outputs.items()})
    name = os.path.join(folder, GOLDEN)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    np.savez_compressed(name, **with_sizes(golden))
    return rows


def _rows_kept(arrays: Any) -> int:
    rows = min(len(array) for array in arrays)
    row_bytes = sum(storable(array[:1]).nbytes for array in arrays)
    return max(1, min(rows, MAX_ROWS, MAX_BYTES // max(row_bytes, 1)))


def read_golden(bundle: Bundle) -> Arrays:
    """What `write_golden` stored.

    Raises:
        InputError: the bundle has none, with what to do.
    """
    name = os.path.join(bundle.path, GOLDEN)
    if not os.path.isfile(name):
        raise InputError(
            f"bundle {bundle.path} holds no golden data ({GOLDEN}), so there is nothing to verify "
            "it with. Convert the model again with --reference FILE.npz, or without --reference "
            "where the source can compute the outputs itself."
        )
    found = read_reference(name)
    if not found.outputs:
        raise InputError(f"{name}: expected outputs/<name> beside the inputs; found none")
    return found
