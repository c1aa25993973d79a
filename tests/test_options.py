"""Options check themselves; those that change results are told from those that do not."""

from __future__ import annotations

import dataclasses

import pytest

from batchinfer.errors import InputError
from batchinfer.options import (
    ClusterOptions,
    FaultOptions,
    HookOptions,
    OutputOptions,
    ScoreOptions,
)

SCORE = ScoreOptions(bundle="bundle", inputs=("data",), output="out")
WRONG = [
    (SCORE, {"bundle": ""}, "bundle: expected a folder; found ''"),
    (SCORE, {"inputs": ()}, "input: expected at least one file, folder or glob; found ()"),
    (SCORE, {"output": ""}, "output: expected a folder; found ''"),
    (SCORE, {"keep": ("a", "b", "a")}, "keep: expected each column once; found 'a,b,a'"),
    (SCORE, {"batch_rows": 0}, "batch_rows: expected more than 0; found 0"),
    (SCORE, {"shard_bytes": -1}, "shard_bytes: expected more than 0; found -1"),
    (OutputOptions(), {"columns": ("a", "a")}, "output_columns: expected each output once; "),
    (OutputOptions(), {"argmax": ("a", "a")}, "argmax: expected each output once; found 'a,a'"),
    (OutputOptions(), {"top_k": {"a": 0}}, "top_k a: expected 1 or more; found 0"),
    (OutputOptions(), {"compression": "gzip"}, "compression: expected one of snappy, zstd, none; "),
    (HookOptions(), {"preprocess_columns": ("a",)}, "preprocess_columns: expected preprocess with"),
    (HookOptions(), {"postprocess_outputs": ("a",)}, "postprocess_outputs: expected postprocess"),
    (HookOptions("m:f"), {"preprocess_columns": ("a", "a")}, "preprocess_columns: expected each"),
    (SCORE, {"columns": {"x": "p"}, "hooks": HookOptions("m:f", ("a",))}, "map: expected none"),
    (ClusterOptions(), {"device": "tpu"}, "device: expected one of auto, cpu, gpu; found 'tpu'"),
    (ClusterOptions(), {"actors": 0}, "actors: expected more than 0; found 0"),
    (ClusterOptions(), {"cpus_per_actor": 0}, "cpus_per_actor: expected more than 0; found 0"),
    (ClusterOptions(), {"gpus_per_actor": 0.0}, "gpus_per_actor: expected more than 0 and at most"),
    (ClusterOptions(), {"gpus_per_actor": 1.5}, "gpus_per_actor: expected more than 0 and at most"),
    (ClusterOptions(), {"num_gpus": -1}, "num_gpus: expected 0 or more; found -1"),
    (FaultOptions(), {"max_attempts": 0}, "max_attempts: expected more than 0; found 0"),
    (FaultOptions(), {"stall_timeout_s": 0}, "stall_timeout_s: expected more than 0; found 0"),
    (FaultOptions(), {"start_timeout_s": -1}, "start_timeout_s: expected more than 0; found -1"),
    (FaultOptions(), {"lease_ttl_s": 0}, "lease_ttl_s: expected more than 0; found 0"),
    (FaultOptions(), {"retry_budget_s": -1}, "retry_budget_s: expected 0 or more; found -1"),
]  # fmt: skip


@pytest.mark.parametrize("options, change, words", WRONG, ids=[str(w[1]) for w in WRONG])
def test_an_option_out_of_range_says_what_was_expected_and_found(options, change, words):
    with pytest.raises(InputError) as error:
        dataclasses.replace(options, **change)
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    "options",
    [
        ClusterOptions(gpus_per_actor=0.25, num_gpus=0, actors=1, cpus_per_actor=1),
        FaultOptions(retry_budget_s=0, max_attempts=1, lease_ttl_s=0.1),
    ],
    ids=["cluster", "faults"],
)
def test_the_edges_are_in_range(options):
    assert dataclasses.replace(options) == options


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SCORE.bundle = "other"


# What changes results ---------------------------------------------------------------------

HARMLESS = {
    "bundle": "elsewhere",  # its digest is in the fingerprint
    "inputs": ("elsewhere",),  # so is the plan's
    "output": "elsewhere",
    "batch_rows": 7,
    "storage_options": {"key": "value"},
    "allow_unproven": True,
    "profile": True,
}
RESULTS = {
    "columns": {"x": "pixels"},
    "keep": ("id",),
    "shard_bytes": 5,
    "outputs": OutputOptions(columns=("y",)),
    "hooks": HookOptions(preprocess="m:f"),
    "xla": True,
}


def test_every_option_is_either_harmless_or_part_of_the_result():
    names = {field.name for field in dataclasses.fields(ScoreOptions)}
    assert names == set(HARMLESS) | set(RESULTS)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_option_does_not_change_the_run(name):
    changed = dataclasses.replace(SCORE, **{name: HARMLESS[name]})
    assert changed.result_options() == SCORE.result_options()


@pytest.mark.parametrize("name", RESULTS)
def test_an_option_of_the_result_makes_another_run(name):
    changed = dataclasses.replace(SCORE, **{name: RESULTS[name]})
    assert changed.result_options() != SCORE.result_options()


OF_OUTPUTS = {
    "columns": ("y",),
    "top_k": {"y": 2},
    "argmax": ("y",),
    "labels": {"y": "file"},  # its content's digest is in the fingerprint
    "compression": "zstd",  # the same rows, in other bytes
}


def test_what_is_written_of_the_outputs_is_part_of_the_result():
    assert list(OF_OUTPUTS) == [field.name for field in dataclasses.fields(OutputOptions)]
    found = [OutputOptions(**{name: value}).result_options() for name, value in OF_OUTPUTS.items()]
    assert found == [{"output_columns": ["y"]}, {"top_k": [["y", 2]]}, {"argmax": ["y"]}, {}, {}]


def test_a_hook_and_what_it_is_given_are_part_of_the_result():
    assert HookOptions("m:f", ("b", "a"), "m:g", ("y",)).result_options() == {
        "preprocess": "m:f",
        "preprocess_columns": ["b", "a"],
        "postprocess": "m:g",
        "postprocess_outputs": ["y"],
    }


def test_without_such_options_a_run_is_the_one_it_was_before_there_were_any():
    assert list(SCORE.result_options()) == ["columns", "keep", "shard_bytes"]


def test_the_order_of_outputs_is_that_of_the_columns():
    two = [OutputOptions(top_k=k).result_options() for k in ({"a": 1, "b": 1}, {"b": 1, "a": 1})]
    assert two[0] != two[1]


def test_the_order_in_which_columns_are_named_is_no_difference():
    one, two = ({"x": "p", "y": "q"}, {"y": "q", "x": "p"})
    results = [dataclasses.replace(SCORE, columns=c).result_options() for c in (one, two)]
    assert list(results[0]["columns"]) == list(results[1]["columns"]) == ["x", "y"]


def test_a_relative_output_is_refused_in_a_ray_job(monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="expected an absolute path or a URL"):
        ScoreOptions(bundle="b", inputs=("i",), output="predictions")
    for output in ("/predictions", "s3://bucket/predictions", "~/predictions"):
        assert ScoreOptions(bundle="b", inputs=("i",), output=output).output == output


def test_storage_options_are_pairs():
    with pytest.raises(InputError, match="storage_options: expected name: value pairs"):
        ScoreOptions(bundle="b", inputs=("i",), output="o", storage_options="abc")
