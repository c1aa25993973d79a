"""Models as people write them for TPUs: every input form against the run without a TPU."""

from __future__ import annotations

import os

import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError
from tests.conversion.models import scoring
from tests.conversion.models.text import TEXT
from tests.conversion.models.vision import VISION

CASES = [(model, form) for model in TEXT + VISION for form in model.forms]
CONVERTED = [case for case in CASES if not case[0].forms[case[1]].refused]
REFUSED = [case for case in CASES if case[0].forms[case[1]].refused]


def cases(chosen):
    return [pytest.param(model, form, id=f"{model.name}-{form}") for model, form in chosen]


@pytest.mark.parametrize("model, form", cases(CONVERTED))
def test_every_form_of_a_model_gives_the_predictions_of_its_run_without_a_tpu(
    prepared, tmp_path, model, form
):
    out = str(tmp_path / "bundle")
    scoring.convert_form(prepared(model), form, out)
    assert scoring.worst_difference(prepared(model), form, out) <= model.forms[form].atol
    assert Bundle.open(out).manifest["batch"]["kind"] == model.forms[form].batch


@pytest.mark.parametrize("model, form", cases(REFUSED))
def test_what_holds_no_predictor_is_refused(prepared, tmp_path, model, form):
    with pytest.raises(InputError) as caught:
        scoring.convert_form(prepared(model), form, str(tmp_path / "bundle"))
    assert model.forms[form].refused in str(caught.value)
    assert os.listdir(str(tmp_path)) == []
