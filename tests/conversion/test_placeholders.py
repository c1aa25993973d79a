"""Placeholders that are no inputs: refused by name, or fixed."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def build():
    """y = x * keep * w, or random numbers while training."""
    x = tf.placeholder(tf.float32, [None, 3], name="x")
    keep = tf.placeholder(tf.float32, [], name="keep")
    training = tf.placeholder(tf.bool, name="training")
    w = tf.get_variable("w", initializer=np.array([1, 2, 3], np.float32))
    y = tf.cond(training, lambda: x * tf.random_uniform([3]), lambda: x * keep * w)
    return {"x": x, "keep": keep, "training": training}, tf.identity(y, name="y")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A MetaGraph, and a SavedModel whose signature has all three placeholders as inputs."""
    folder = str(tmp_path_factory.mktemp("placeholders"))
    with tf.Graph().as_default(), tf.Session() as session:
        inputs, y = build()
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(folder, "m"))
        tf.saved_model.simple_save(session, os.path.join(folder, "saved"), inputs, {"y": y})
    return {
        "meta": (os.path.join(folder, "m.meta"), {"inputs": {"x": "x"}, "outputs": {"y": "y"}}),
        "saved": (os.path.join(folder, "saved"), {}),
    }


def converted(sources, kind, out, **fixed):
    source, tensors = sources[kind]
    convert(ConvertOptions(source, str(out), fixed=fixed, **tensors))
    return Bundle.open(str(out))


def test_a_placeholder_that_is_no_input_is_refused_by_name(sources, tmp_path):
    with pytest.raises(InputError) as error:
        converted(sources, "meta", tmp_path / "b", training="false")
    assert "the outputs need 1 placeholder(s) that are no inputs:\n  keep: float32[]" in str(
        error.value
    )
    assert "--fix keep=VALUE" in str(error.value)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", ["meta", "saved"])
def test_what_is_fixed_is_a_constant_in_bundle_and_reference(sources, tmp_path, kind):
    bundle = converted(sources, kind, tmp_path / "b", training="False", keep="0.5")
    assert [str(one) for one in bundle.signature.inputs] == ["x: float32[?, 3]"]
    assert bundle.parity_passed
    assert "keep is 0.5 for ever, training is False for ever" in bundle.manifest["notes"]
    scorer = Scorer.restore(bundle, 2)
    found = scorer.score({"x": X})["y"]
    scorer.close()
    assert found.tolist() == [[0.0, 1.0, 3.0], [1.5, 4.0, 7.5]]


def test_two_values_make_two_sources(sources, tmp_path):
    digests = {
        converted(sources, "saved", tmp_path / keep, training="false", keep=keep).manifest[
            "source"
        ]["digest"]
        for keep in ("0.5", "1")
    }
    assert len(digests) == 2


@pytest.mark.parametrize(
    "fixed, message",
    [
        ({"kep": "1"}, "kep: no such placeholder; nearest: keep"),
        ({"training": "maybe"}, "training=maybe: expected true or false"),
        ({"keep": "half"}, "keep=half: expected a value of dtype float32"),
        ({"x": "1"}, "x=1: its shape [?, 3] is open; expected a fixed one"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(sources, tmp_path, fixed, message):
    with pytest.raises(InputError) as error:
        converted(sources, "saved", tmp_path / "b", **fixed)
    assert message in str(error.value)
