"""A converted form against the run without a TPU: sizes of batch, outputs, the worst difference."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import numpy as np

from batchinfer.bundle import Bundle
from batchinfer.scorer import Scorer
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.reference import score_all
from tests.conversion.models.harness import Prepared


def convert_form(prepared: Prepared, form: str, out: str, **changes: Any) -> Dict[str, Any]:
    """Convert one input form of a model; returns what the command would print."""
    return convert(ConvertOptions(out=out, **{**prepared.form(form), **changes}))


def batch_sizes(prepared: Prepared) -> List[int]:
    """One row, the traced batch, and two sizes that are no multiple of it."""
    rows = prepared.model.batch_rows
    return [1, rows, rows - 1, 2 * rows + 1]


def worst_difference(prepared: Prepared, form: str, path: str) -> float:
    """Largest |bundle - reference| over all sizes and outputs, of the output's scale.

    The scale is the largest |reference|, and at least 1. Integers and strings have to be equal.

    Raises:
        AssertionError: an output is missing, or has another dtype or shape.
    """
    bundle = Bundle.open(path)
    features, expected = prepared.reference(2 * prepared.model.batch_rows + 1, form)
    worst = 0.0
    for size in batch_sizes(prepared):
        fed = {name: array[:size] for name, array in features.items()}
        found = score(bundle, fed, size)
        assert sorted(found) == sorted(expected)
        for name, array in found.items():
            worst = max(worst, difference(name, array, expected[name][:size]))
    return worst


def score(bundle: Bundle, fed: Mapping[str, Any], size: int) -> Dict[str, Any]:
    """In batches of `size` rows, or of the size that the bundle is fixed to."""
    inputs = {spec.name: fed[spec.name] for spec in bundle.signature.inputs}
    scorer = Scorer.restore(bundle, None if bundle.signature.fixed_batch_rows else size)
    try:
        return score_all(scorer, inputs)
    finally:
        scorer.close()


def difference(name: str, found: Any, expected: Any) -> float:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
    away = np.abs(found - expected)[np.isfinite(expected)]
    return float(away.max(initial=0.0)) / scale
