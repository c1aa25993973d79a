"""What a run refuses, before it writes anything and when the output is not its own."""

from __future__ import annotations

import json
import os

import pytest

from batchinfer.errors import (
    BundleError,
    InputError,
    OutputConflictError,
    SchemaError,
)
from batchinfer.run_folder import RunFolder, part_name
from batchinfer.storage import open_store
from tests.runs.support import lose_actor_when
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

# Refused before anything is written -------------------------------------------------------


REFUSALS = [
    ("a missing column", lambda t, d, o: {"columns": {"x": "pixels"}}, SchemaError, "'pixels'"),
    ("an unknown input", lambda t, d, o: {"columns": {"z": "x"}}, SchemaError, "no input 'z'"),
    ("a kept column that is missing", lambda t, d, o: {"keep": ("key",)}, SchemaError, "'key'"),
    ("a wrong dtype", lambda t, d, o: {"columns": {"x": "name"}}, SchemaError, "string"),
    ("a wrong shape", lambda t, d, o: {"columns": {"x": "id"}}, SchemaError, "expected 4 values"),
    ("no such input", lambda t, d, o: {"inputs": (d + "/none",)}, InputError, "no Parquet file"),
    ("an empty glob", lambda t, d, o: {"inputs": (d + "/z*",)}, InputError, "no Parquet file"),
    ("a file twice", lambda t, d, o: {"inputs": (d, d)}, InputError, "named twice"),
    ("no bundle", lambda t, d, o: {"bundle": str(t)}, BundleError, "not a bundle"),
    (
        "output inside input",
        lambda t, d, o: {"output": d + "/out"},
        InputError,
        "inside each other",
    ),
    ("input inside output", lambda t, d, o: {"output": str(t)}, InputError, "inside each other"),
    (
        "a glob takes output",
        lambda t, d, o: {"inputs": (d + "/*",), "output": d + "/out"},
        InputError,
        "inside each other",
    ),
    (
        "a link to the input",
        lambda t, d, o: {"output": str(t / "link" / "out")},
        InputError,
        "inside each other",
    ),
    ("output below a file", lambda t, d, o: {"output": d + "/../bad/out"}, InputError, "written"),
    ("a batch of none", lambda t, d, o: {"batch_rows": 0}, InputError, "batch_rows"),
]


@pytest.mark.parametrize(
    "change, error, words", [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_refused_before_an_actor_starts(score, data, tmp_path, other_bundle, change, error, words):
    (tmp_path / "bad").write_text("a file where a folder should be")
    (tmp_path / "link").symlink_to(data)
    backend = ThreadBackend()
    with pytest.raises(error, match=words):
        score(backend, **change(tmp_path, data, other_bundle))
    assert backend.engine is None
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_passed_parity_is_scored_only_on_demand(score, tmp_path):
    unproven = tiny.make_bundle(str(tmp_path / "unproven"), proven=False).path
    with pytest.raises(BundleError, match="no passed parity report"):
        score(bundle=unproven)
    assert score(bundle=unproven, allow_unproven=True)["exit_status"] == 0


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda o, d: {"bundle": o}, "bundle_digest"),
        (lambda o, d: {"keep": ("id", "name")}, "keep"),
        (lambda o, d: {"shard_bytes": 6000}, "shard_bytes"),
        (lambda o, d: {"inputs": (d + "/data-0000[0-8].parquet",)}, "missing  .*data-00009"),
    ],
    ids=["another bundle", "other kept columns", "other shards", "another input"],
)
def test_another_run_on_the_same_output_is_refused(
    score, data, tmp_path, other_bundle, change, words
):
    score()
    files = sorted(os.walk(str(tmp_path / "out")))
    before = check.snapshot(str(tmp_path / "out"))
    with pytest.raises(OutputConflictError, match=words):
        score(**change(other_bundle, data))
    assert sorted(os.walk(str(tmp_path / "out"))) == files
    assert check.snapshot(str(tmp_path / "out")) == before


def test_a_folder_with_files_of_others_is_refused(score, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs.parquet").write_text("not ours")
    with pytest.raises(OutputConflictError, match=r"theirs\.parquet"):
        score()
    assert os.listdir(str(tmp_path / "out")) == ["theirs.parquet"]


def test_a_stray_object_in_a_run_stops_the_rerun_and_is_left_alone(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    (tmp_path / "out" / "part-9999999-stray.parquet").write_text("stray")
    with pytest.raises(OutputConflictError, match="part-9999999-stray"):
        score()
    assert (tmp_path / "out" / "part-9999999-stray.parquet").read_text() == "stray"


def test_a_committed_object_that_vanished_is_said_not_scored_again(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    (name, *_) = sorted(check.snapshot(str(tmp_path / "out")))
    (tmp_path / "out" / name).unlink()
    with pytest.raises(OutputConflictError, match="the ledger says it was committed"):
        score()


def test_a_foreign_object_under_our_name_stops_a_rerun(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    run = json.loads((tmp_path / "out/_batchinfer/run.json").read_text())
    plan = RunFolder(*open_store(str(tmp_path / "out"))).read_plan(run)
    name = part_name(plan.shards[3], run["fingerprint"])
    (other, *_) = sorted(check.snapshot(str(tmp_path / "out")))
    (tmp_path / "out" / name).write_bytes((tmp_path / "out" / other).read_bytes())
    with pytest.raises(OutputConflictError, match="is not what this run writes"):
        score()


def test_an_object_that_was_damaged_is_not_counted(score, tmp_path):
    score()
    path = tmp_path / "out" / sorted(check.snapshot(str(tmp_path / "out")))[3]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OutputConflictError, match="is not a whole Parquet object"):
        score()
