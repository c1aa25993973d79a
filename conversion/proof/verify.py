"""A bundle with golden data -> whether this machine and runtime reproduce it."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any, Dict, List, Optional, Tuple

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError
from batchinfer.scorer import DEFAULT_BATCH_ROWS, Scorer
from batchinfer.tf1 import tf
from conversion.proof.golden import read_golden
from conversion.proof.parity import ParityReport, compare
from conversion.proof.reference_file import check_inputs
from conversion.proof.tolerance import TOLERANCES, Tolerance


def verify(
    path: str,
    asked: Optional[Tolerance] = None,
    batch_rows: Optional[int] = None,
    xla: bool = False,
) -> ParityReport:
    """Score the golden inputs with the production scorer and compare.

    Args:
        path: the bundle; nothing is written to it.
        asked: None takes the tolerance of the bundle's own report.
        batch_rows: rows per run; None is the fixed size, else all golden rows.
        xla: compile the model with XLA.

    Raises:
        InputError: not a bundle, no golden data in it, or rows that the graph does not take.
    """
    bundle = Bundle.open(path)
    golden = read_golden(bundle)
    inputs = check_inputs(golden, bundle.signature)
    rows = len(next(iter(inputs.values())))
    if batch_rows is None and bundle.signature.fixed_batch_rows is None:
        batch_rows = min(rows, DEFAULT_BATCH_ROWS)
    scorer = Scorer.restore(bundle, batch_rows, xla=xla)
    try:
        found = scorer.score(inputs)
        batch_rows = scorer.batch_rows
    except tf.errors.OpError as error:
        raise InputError(f"bundle {path} does not run on this machine: {error}") from error
    finally:
        scorer.close()
    tolerance, why = (asked, "--atol and --rtol") if asked else tolerance_of(bundle)
    here = {**runtime(), "xla": xla}
    about = {
        "tolerance_why": why,
        "bundle": {"path": path, "digest": bundle.digest, "made_by": bundle.manifest.get("tool")},
        "runtime": here,
        "rows": rows,
        "batch_rows": batch_rows,
    }
    title = f"{path} on {described(here)}, {rows} golden rows in batches of {batch_rows}"
    return replace(compare(found, golden.outputs, tolerance), about=about, title=title)


def tolerance_of(bundle: Bundle) -> Tuple[Tolerance, str]:
    """What the bundle was converted with, and that this is where it comes from."""
    report: Dict[str, Any] = bundle.manifest.get("parity") or {}
    names = ("atol", "rtol", "of_scale", "of_spread")
    if not {"atol", "rtol"} <= set(report):
        return TOLERANCES["float32"], "default for float32; the bundle has no report"
    return Tolerance(*[float(report.get(name, 0.0)) for name in names]), "as it was converted with"


def runtime() -> Dict[str, Any]:
    """What scores here."""
    return {
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "devices": _devices(),
    }


def _devices() -> List[str]:
    """The GPUs, or the CPU where there is none."""
    with tf.Session(graph=tf.Graph()) as session:
        found = [
            device.name.rpartition("/device:")[2]
            for device in session.list_devices()
            if device.device_type == "GPU"
        ]
    return found or [f"CPU ({platform.processor() or platform.machine()})"]


def described(found: Dict[str, Any]) -> str:
    devices = ", ".join(found["devices"])
    compiled = " with XLA" if found.get("xla") else ""
    return f"TensorFlow {found['tensorflow']}{compiled}, Python {found['python']}, {devices}"
