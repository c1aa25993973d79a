"""The rules file."""

from __future__ import annotations

import pytest

from batchinfer.errors import InputError
from conversion.weights.names import Drop, Rename, Rules, Transform
from conversion.weights.rules import EXAMPLE, read_rules
from conversion.weights.steps import Cast, Concat, Reshape, Transpose, UnpermuteMod

T = "transform: [{to: a, from: b, "


def test_the_example_in_the_message_is_a_rules_file(tmp_path):
    (tmp_path / "rules.yaml").write_text(EXAMPLE)
    assert read_rules(str(tmp_path / "rules.yaml")) == Rules(
        renames=(Rename("tpu_cnn_model/(.*)", r"gpu_cnn_model/\1"),),
        drops=(Drop("debug/.*", "written by a hook, not part of the model"),),
        transforms=(
            Transform(
                "gpu_cnn_model/table",
                ("table/shard_0", "table/shard_1"),
                (Concat(0), UnpermuteMod(2)),
                "a TPU embedding table with partition_strategy='mod' of two hosts",
            ),
        ),
    )


def test_no_file_and_an_empty_file_give_no_rules(tmp_path):
    (tmp_path / "rules.yaml").write_text("")
    assert read_rules(None) == read_rules(str(tmp_path / "rules.yaml")) == Rules()


def test_each_step_is_read(tmp_path):
    steps = "[{reshape: [2, -1]}, {transpose: [1, 0]}, {cast: float32}]"
    (tmp_path / "rules.yaml").write_text(f"{T}steps: {steps}, reason: r}}]")
    (rule,) = read_rules(str(tmp_path / "rules.yaml")).transforms
    assert rule.sources == ("b",)
    assert rule.steps == (Reshape((2, -1)), Transpose((1, 0)), Cast("float32"))


@pytest.mark.parametrize(
    "text, message",
    [
        ("renames: []", "expected lists rename, drop and transform"),
        ("- a", "expected lists rename, drop and transform"),
        ("rename: [{from: a}]", "expected the keys from and to in each rule; found {'from': 'a'}"),
        ("drop: [a]", "expected the keys name and reason in each rule; found 'a'"),
        ("rename: {", "cannot read --rules"),
        ("rename: a", "expected the keys from and to in each rule; found 'a'"),
        ("drop: [{name: a, reason: }]", "drop 'a' has no reason"),
        (T + "steps: [{transpose: 1}], reason: r}]", "found {'transpose': 1}"),
        (T + "steps: [{unpermute_mod: 0}], reason: r}]", "found {'unpermute_mod': 0}"),
        (T + "steps: [{cast: complex64}], reason: r}]", "found {'cast': 'complex64'}"),
        (T + "steps: [flip], reason: r}]", "expected a step of {concat: AXIS}"),
        (T + "steps: [], reason: r}]", "transform 'a' has no source or no step"),
        (T + "steps: {cast: float32}, reason: r}]", "a list in `steps`"),
    ],
)
def test_a_file_that_is_no_rules_file_is_refused(tmp_path, text, message):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_rules(str(tmp_path / "rules.yaml"))
    assert message in str(error.value)
