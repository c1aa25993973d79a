"""What the models of vision are known for: averages that are chosen, dilations that are ignored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import MappingError
from batchinfer.tf1 import tf
from conversion import surgery
from tests.conversion.models import efficientnet, scoring
from tests.conversion.models.vision import VISION

ROWS = 4
EFFICIENTNET, DILATED = (
    next(model for model in VISION if model.name == name) for name in ("efficientnet", "dilated")
)
LABELS = "labels:\n  label: int32[?]\n"


@pytest.fixture(scope="session")
def images():
    return efficientnet.make_features(ROWS, seed=3)


@pytest.fixture(scope="session")
def expected(prepared, images):
    """Probabilities with the raw weights, and with the moving averages of all of them."""
    found = {}
    for weights in ("raw", "ema"):
        with tf.Graph().as_default(), tf.Session() as session:
            image = tf.constant(images["image"])
            logits = efficientnet.logits_of({"image": image}, False, efficientnet.params())
            averaged = weights == "ema"
            saver = efficientnet.scaffold_of_averages().saver if averaged else tf.train.Saver()
            saver.restore(session, prepared(EFFICIENTNET).checkpoint)
            found[weights] = session.run(tf.nn.softmax(logits))
    assert np.abs(found["raw"] - found["ema"]).max() > 0.01
    return found


def probabilities(path, images):
    return scoring.score(Bundle.open(path), images, ROWS)["probabilities"]


@pytest.mark.parametrize(
    "weights, form", [("raw", "rewrite"), ("ema", "rewrite"), ("ema", "model_fn")]
)
def test_raw_weights_or_averages_are_taken_as_chosen(
    prepared, images, expected, tmp_path, form, weights
):
    out = str(tmp_path / "bundle")
    scoring.convert_form(prepared(EFFICIENTNET), form, out, weights=weights)
    np.testing.assert_allclose(probabilities(out, images), expected[weights], rtol=0, atol=1e-6)
    sources = [one["source"] for one in Bundle.open(out).manifest["variables"].values()]
    names = [name for one in sources for name in ([one] if isinstance(one, str) else one)]
    averages = ["/ExponentialMovingAverage" in name for name in names]
    assert all(averages) if weights == "ema" else not any(averages)


def test_a_checkpoint_with_both_asks_for_the_choice(prepared, tmp_path):
    with pytest.raises(MappingError, match=r"--weights ema  (\d+) of \1 variables") as error:
        scoring.convert_form(prepared(EFFICIENTNET), "rewrite", str(tmp_path / "b"), weights=None)
    assert "0.93" not in str(error.value)
    assert not (tmp_path / "b").exists()


def test_the_scaffold_of_an_evaluation_restores_averages_without_being_asked(
    prepared, images, expected, tmp_path
):
    asked = prepared(EFFICIENTNET).form("model_fn")
    features = tmp_path / "features.yaml"
    with open(asked["code"].features, encoding="utf-8") as file:
        features.write_text(
            "features:\n  " + file.read().replace("\n", "\n  ").strip() + "\n" + LABELS
        )
    code = dataclasses.replace(asked["code"], mode="eval", features=str(features))
    out = str(tmp_path / "bundle")
    scoring.convert_form(prepared(EFFICIENTNET), "model_fn", out, code=code, weights=None)
    np.testing.assert_allclose(probabilities(out, images), expected["ema"], rtol=0, atol=1e-6)


def test_stripping_alone_gives_wrong_pixels_without_an_error(prepared, tmp_path, monkeypatch):
    """What other tools do: TensorFlow 1.15 runs the convolutions as if they had no dilations."""
    others = tuple(one for one in surgery.REWRITES if one.name != "dilated_depthwise")
    monkeypatch.setattr(surgery, "REWRITES", others)
    monkeypatch.setattr("conversion.graphs.inventory.refuse", lambda *_: None)
    out = str(tmp_path / "bundle")
    scoring.convert_form(prepared(DILATED), "rewrite", out, allow_parity_failure=True)
    features, by_size = prepared(DILATED).reference("rewrite")
    found = scoring.score(Bundle.open(out), features, ROWS)["pixel_scores"]
    assert np.abs(found - by_size[ROWS]["pixel_scores"]).max() > 0.3
