"""Whole runs on a local folder, the actors being threads."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.dispatcher import ActorLostError
from batchinfer.driver import run
from batchinfer.errors import (
    BundleError,
    InputError,
    OutputConflictError,
    SchemaError,
    StoppedError,
    StorageError,
)
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from batchinfer.run_folder import RunFolder, part_name
from batchinfer.storage import Retry, open_store
from batchinfer.storage.local import LocalStore
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

FAULTS = FaultOptions(lease_ttl_s=0.5, retry_budget_s=1.0)


@pytest.fixture
def data(tmp_path):
    """10 files of 300 rows: ids 0 to 2999."""
    tiny.make_data(str(tmp_path / "data"), 10, 300, row_group_rows=100)
    return str(tmp_path / "data")


@pytest.fixture
def score(bundle, data, tmp_path):
    """Run with small shards (one per file) into tmp_path/out; options can be overridden."""

    def call(backend=None, faults=FAULTS, **changes):
        options = {
            "bundle": bundle, "inputs": (data,), "output": str(tmp_path / "out"), "keep": ("id",),
            "shard_bytes": 5000, "batch_rows": 64,
        }  # fmt: skip
        options.update(changes)
        backend = backend or ThreadBackend()
        return run(ScoreOptions(**options), ClusterOptions(), faults, backend.backend())

    return call


IDS = np.arange(3000)


def test_every_row_is_scored_once_in_input_order(score, tmp_path):
    report = score()
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
    assert (report["exit_status"], report["status"]) == (0, "done")
    assert (report["rows_in"], report["rows_out"], report["rows_rejected"]) == (3000, 3000, 0)
    assert report["shards"] == report["shards_scored"] == 10
    success = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert (success["rows"], len(success["files"])) == (3000, 10)
    saved = json.loads((tmp_path / "out" / "_batchinfer" / "report.json").read_text())
    assert saved == {key: value for key, value in report.items() if key != "exit_status"}


def test_a_rerun_of_a_finished_output_scores_nothing_and_changes_nothing(score, tmp_path):
    score()
    before = check.snapshot(str(tmp_path / "out"))
    backend = ThreadBackend()
    report = score(backend)
    assert backend.engine is None
    assert (report["shards_scored"], report["shards_done_before"]) == (0, 10)
    assert (report["exit_status"], check.snapshot(str(tmp_path / "out"))) == (0, before)


def test_the_batch_size_never_changes_what_is_written(score, tmp_path):
    score(batch_rows=7, output=str(tmp_path / "seven"))
    score(batch_rows=1000, output=str(tmp_path / "thousand"))
    names = sorted(check.snapshot(str(tmp_path / "seven")))
    assert names == sorted(check.snapshot(str(tmp_path / "thousand")))
    for name in names:
        seven, thousand = tmp_path / "seven" / name, tmp_path / "thousand" / name
        assert seven.read_bytes() == thousand.read_bytes()


def test_many_small_files_make_one_shard_and_share_batches(score, tmp_path):
    backend = ThreadBackend()
    report = score(backend, shard_bytes=None)
    assert report["shards"] == 1
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_a_large_file_is_cut_between_row_groups(score, data, tmp_path):
    pq.write_table(tiny.table(0, 3000), str(tmp_path / "one.parquet"), row_group_size=500)
    report = score(inputs=(str(tmp_path / "one.parquet"),), shard_bytes=3000)
    assert report["shards"] == 6
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def lose_actor_when(shard_index, times, moment):
    """Plant the death of the actor `before` or `after` it scored a shard."""

    def plant(engine):
        left = [times]

        def die(actor, shard):
            if shard.index == shard_index and left[0]:
                left[0] -= 1
                raise ActorLostError("killed by the test")

        setattr(engine, moment, die)

    return plant


def test_the_shards_of_a_dead_actor_are_scored_by_another(score, tmp_path):
    report = score(ThreadBackend(lose_actor_when(3, 1, "before")))
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
    assert (report["exit_status"], report["actors_lost"]) == (0, 1)


def test_an_actor_that_dies_after_its_put_leaves_a_shard_that_is_adopted(score, tmp_path):
    report = score(ThreadBackend(lose_actor_when(3, 1, "after")))
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
    # The shard that the dying actor also had in hand may have been written by either.
    assert report["exit_status"] == 0
    assert report["shards_adopted"] in (1, 2)
    assert report["shards_adopted"] + report["shards_scored"] == 10


def test_a_shard_that_kills_every_actor_is_given_up_and_the_rest_goes_on(score, tmp_path):
    report = score(ThreadBackend(lose_actor_when(3, 99, "before")))
    rest = np.concatenate([IDS[:900], IDS[1200:]])
    check.assert_exact(str(tmp_path / "out"), rest, tiny.expected(rest))
    assert (report["exit_status"], report["status"]) == (1, "gave_up")
    assert (report["rows_missing"], report["shards_missing"]) == (300, 1)
    (entry,) = json.loads((tmp_path / "out/_batchinfer/quarantine.json").read_text())["shards"]
    assert (entry["shard"], len(entry["errors"])) == (3, 3)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_the_same_command_scores_what_was_given_up(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    before = check.snapshot(str(tmp_path / "out"))
    backend = ThreadBackend()
    report = score(backend)
    assert (backend.engine.scored, report["exit_status"]) == ([3], 0)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
    after = check.snapshot(str(tmp_path / "out"))
    assert {name: after[name] for name in before} == before
    quarantine = json.loads((tmp_path / "out/_batchinfer/quarantine.json").read_text())
    assert quarantine == {"shards": []}


def test_a_signal_stops_with_75_and_the_same_command_scores_only_the_rest(score, tmp_path):
    stopping = ThreadBackend()

    def stop_after_three(engine):
        def after(actor, shard):
            if len(engine.scored) >= 3:
                stopping.signals.stop_name = "SIGTERM"

        engine.after = after

    stopping._prepare = stop_after_three
    report = score(stopping)
    assert (report["exit_status"], report["status"]) == (75, "stopped")
    assert "SIGTERM" in report["reason"]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    wait_for_threads()
    done = len(check.snapshot(str(tmp_path / "out")))
    assert 0 < done < 10

    again = ThreadBackend()
    report = score(again)
    assert (len(again.engine.scored), report["exit_status"]) == (10 - done, 0)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def wait_for_threads():
    """A stopped run's actors may still be writing, as real ones would for a few seconds."""
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread() and "Thread-" in thread.name:
            thread.join(5)


def test_rows_that_cannot_be_fed_go_to_the_rejects_with_their_reason(score, data, tmp_path):
    rows = [[1.0, 2.0, 3.0, 4.0], None, [1.0, 2.0, 3.0], [5.0, None, 7.0, 8.0]]
    table = pa.table({"id": [10, 11, 12, 13], "x": pa.array(rows, pa.list_(pa.float32()))})
    pq.write_table(table, str(tmp_path / "bad.parquet"))
    report = score(inputs=(str(tmp_path / "bad.parquet"),))
    assert (report["rows_in"], report["rows_out"], report["rows_rejected"]) == (4, 1, 3)
    assert (report["exit_status"], report["status"]) == (0, "done")
    assert check.read_parts(str(tmp_path / "out")).column("id").to_pylist() == [10]
    (name,) = os.listdir(str(tmp_path / "out/_batchinfer/rejects"))
    rejects = pq.ParquetFile(str(tmp_path / "out/_batchinfer/rejects" / name)).read().to_pydict()
    assert rejects == {
        "_file": [str(tmp_path / "bad.parquet")] * 3,
        "_row": [1, 2, 3],
        "_reason": ["x: null", "x: list of 3 values, expected 4", "x: null inside the list"],
        "id": [11, 12, 13],
    }


def test_a_shard_of_rejects_only_is_committed_with_no_rows(score, tmp_path):
    table = pa.table({"id": [1, 2], "x": pa.array([None, None], pa.list_(pa.float32()))})
    pq.write_table(table, str(tmp_path / "bad.parquet"))
    report = score(inputs=(str(tmp_path / "bad.parquet"),))
    assert (report["rows_out"], report["rows_rejected"], report["exit_status"]) == (0, 2, 0)


def test_empty_files_are_scored_to_nothing_and_counted(score, data, tmp_path):
    pq.write_table(tiny.table(0, 0), os.path.join(data, "data-00000a.parquet"))
    report = score()
    assert (report["rows_in"], report["exit_status"]) == (3000, 0)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def corrupt(path):
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) - 10)


def drop_column(path):
    pq.write_table(pq.ParquetFile(path).read().drop(["x"]), path)


@pytest.mark.parametrize(
    "harm, reason",
    [(corrupt, "not a readable Parquet file"), (drop_column, "no column 'x' for input x")],
)
def test_one_bad_file_costs_one_file(score, data, tmp_path, harm, reason):
    harm(os.path.join(data, "data-00004.parquet"))
    report = score()
    rest = np.concatenate([IDS[:1200], IDS[1500:]])
    check.assert_exact(str(tmp_path / "out"), rest, tiny.expected(rest))
    assert (report["exit_status"], len(report["quarantined"])) == (1, 1)
    assert report["quarantined"][0]["files"] == [os.path.join(data, "data-00004.parquet")]
    assert reason in report["quarantined"][0]["errors"][0]


def test_a_file_that_changes_after_the_plan_is_not_scored(score, data, tmp_path):
    def plant(engine):
        tiny_table = tiny.table(999, 300)
        pq.write_table(tiny_table, os.path.join(data, "data-00009.parquet"), row_group_size=100)

    report = score(ThreadBackend(plant))
    assert (report["exit_status"], report["rows_missing"]) == (1, 300)
    assert "changed after it was planned" in report["quarantined"][0]["errors"][0]


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


def test_an_object_under_our_name_that_is_not_ours_is_never_counted(score, tmp_path):
    score()
    names = sorted(check.snapshot(str(tmp_path / "out")))
    fake = tmp_path / "second" / names[3]

    def plant(engine):
        def before(actor, shard):
            if shard.index == 0:
                fake.write_bytes((tmp_path / "out" / names[4]).read_bytes())

        engine.before = before

    report = score(ThreadBackend(plant), output=str(tmp_path / "second"))
    assert (report["exit_status"], report["quarantined"][0]["shard"]) == (1, 3)
    assert "is not what this run writes" in report["quarantined"][0]["errors"][0]


def test_a_second_driver_is_refused_while_the_first_is_at_work(score, tmp_path):
    refused = []

    def plant(engine):
        def after(actor, shard):
            if not refused:
                refused.append(None)
                try:
                    score()
                except StoppedError as error:
                    refused[0] = error

        engine.after = after

    report = score(ThreadBackend(plant))
    assert report["exit_status"] == 0
    assert "another driver is at work" in str(refused[0])
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_success_is_not_written_when_the_output_was_tampered_with(score, tmp_path):
    def plant(engine):
        def after(actor, shard):
            if len(engine.scored) == 10:
                (tmp_path / "out" / "part-stray.parquet").write_text("stray")

        engine.after = after

    report = score(ThreadBackend(plant))
    assert (report["exit_status"], report["status"]) == (1, "gave_up")
    assert "part-stray.parquet" in report["reason"]
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_memory_stays_with_the_process_but_runs_the_same(score, bundle):
    report = score(output="memory://bucket/predictions")
    assert (report["rows_out"], report["exit_status"]) == (3000, 0)
    assert score(output="memory://bucket/predictions")["shards_done_before"] == 10


def test_a_foreign_object_under_our_name_stops_a_rerun(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    run = json.loads((tmp_path / "out/_batchinfer/run.json").read_text())
    plan = RunFolder(*open_store(str(tmp_path / "out"))).read_plan(run)
    name = part_name(plan.shards[3], run["fingerprint"])
    (other, *_) = sorted(check.snapshot(str(tmp_path / "out")))
    (tmp_path / "out" / name).write_bytes((tmp_path / "out" / other).read_bytes())
    with pytest.raises(OutputConflictError, match="is not what this run writes"):
        score()


def test_a_run_that_was_killed_before_success_is_finished_with_a_report(score, tmp_path):
    score()
    (tmp_path / "out" / "_SUCCESS").unlink()
    (tmp_path / "out" / "_batchinfer" / "report.json").unlink()
    backend = ThreadBackend()
    report = score(backend)
    assert (backend.engine, report["exit_status"], report["shards_done_before"]) == (None, 0, 10)
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert json.loads((tmp_path / "out/_batchinfer/report.json").read_text())["status"] == "done"


def test_a_driver_that_waited_for_another_of_the_same_run_scores_nothing_again(score, tmp_path):
    """The other begins and ends between this one's look at the output and its lease."""
    second = ThreadBackend(lambda engine: score())
    report = score(second)
    assert (second.engine.scored, report["shards_done_before"]) == ([], 10)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


class ForbiddingStore(LocalStore):
    """As when credentials expire."""

    def create(self, path, data):
        raise StorageError(f"{path}: AccessDenied")


def test_an_output_that_forbids_writing_in_the_middle_stops_the_run(score, tmp_path):
    """No shard is to blame, and the same command continues."""

    def plant(engine):
        def before(actor, shard):
            if shard.index >= 5:
                actor._folder = RunFolder(ForbiddingStore(Retry(0.1)), str(tmp_path / "out"))

        engine.before = before

    report = score(ThreadBackend(plant))
    assert (report["exit_status"], report["status"]) == (75, "stopped")
    assert "AccessDenied; run the same command again to continue" in report["reason"]
    assert 0 < report["rows_missing"] <= 1500
    assert score()["exit_status"] == 0
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_a_late_attempts_object_of_another_size_is_counted_once(score, tmp_path):
    """A store without conditional writes lets a late actor write a shard's object again."""
    score()
    names = sorted(check.snapshot(str(tmp_path / "out")))
    path = tmp_path / "out" / names[3]
    table = pq.ParquetFile(str(path)).read(use_threads=False)
    pq.write_table(table, str(path), compression="none")  # the same rows and words, other bytes
    report = score()
    assert (report["exit_status"], report["shards_scored"], report["shards_adopted"]) == (0, 0, 1)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_an_object_that_was_damaged_is_not_counted(score, tmp_path):
    score()
    path = tmp_path / "out" / sorted(check.snapshot(str(tmp_path / "out")))[3]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OutputConflictError, match="is not a whole Parquet object"):
        score()


def test_what_a_killed_writer_left_is_removed_by_the_next_run(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    (tmp_path / "out/_batchinfer/tmp/half").write_bytes(b"PAR1 and no more")
    score()
    assert os.listdir(str(tmp_path / "out/_batchinfer/tmp")) == []
