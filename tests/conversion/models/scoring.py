"""A converted form against the run without a TPU: sizes of batch, outputs, the worst difference."""

from __future__ import annotations

from typing import Any, Dict, Mapping

import numpy as np

from batchinfer.bundle import Bundle
from batchinfer.scorer import Scorer
from conversion.convert import convert
from conversion.options import ConvertOptions
from tests.conversion.models.harness import Prepared


def convert_form(prepared: Prepared, form: str, out: str, **changes: Any) -> Dict[str, Any]:
    """Convert one input form of a model; returns what the command would print."""
    return convert(ConvertOptions(out=out, **{**prepared.form(form), **changes}))


def worst_difference(prepared: Prepared, form: str, path: str) -> float:
    """Largest |bundle - reference| over all sizes and outputs, of the output's scale.

    The scale is the largest |reference|, and at least 1. Integers and strings have to be equal.

    Raises:
        AssertionError: an output is missing, or has another dtype or shape.
    """
    bundle = Bundle.open(path)
    features, references = prepared.reference(form)
    worst = 0.0
    scorer = Scorer.restore(bundle)
    try:
        for size in prepared.model.batch_sizes():
            scorer.batch_rows = bundle.signature.fixed_batch_rows or size
            found = _scored(scorer, features, size)
            expected = references[scorer.batch_rows]
            assert sorted(found) == sorted(expected)
            for name, array in found.items():
                worst = max(worst, difference(name, array, expected[name]))
    finally:
        scorer.close()
    return worst


def score(bundle: Bundle, features: Mapping[str, Any], size: int) -> Dict[str, Any]:
    """All rows in one session, `size` at a time, or as many as the bundle is fixed to."""
    scorer = Scorer.restore(bundle, None if bundle.signature.fixed_batch_rows else size)
    try:
        return _scored(scorer, features, size)
    finally:
        scorer.close()


def _scored(scorer: Scorer, features: Mapping[str, Any], size: int) -> Dict[str, Any]:
    size = min(size, scorer.batch_rows)
    names = [spec.name for spec in scorer.signature.inputs]
    num_rows = len(features[names[0]])
    parts = [
        scorer.score({name: features[name][start : start + size] for name in names})
        for start in range(0, num_rows, size)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def difference(name: str, found: Any, expected: Any) -> float:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), name
    if found.dtype.kind != "f":
        return 0.0 if np.array_equal(found, expected) else float("inf")
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
    away = np.abs(found - expected)[np.isfinite(expected)]
    return float(away.max(initial=0.0)) / scale
