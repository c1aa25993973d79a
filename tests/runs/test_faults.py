"""Whole runs, actors on threads: deaths, signals, late writers, stores that refuse."""

from __future__ import annotations

import json
import os
import threading

import numpy as np

from batchinfer import hold
from batchinfer.arrow import pq
from batchinfer.errors import (
    StoppedError,
    StorageError,
)
from batchinfer.run_folder import RunFolder
from batchinfer.storage import Retry
from batchinfer.storage.local import LocalStore
from tests.runs.support import IDS, lose_actor_when
from tests.support import check, tiny
from tests.support.threads import ThreadBackend


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


def test_what_a_killed_writer_left_is_removed_by_the_next_run(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    (tmp_path / "out/_batchinfer/tmp/half").write_bytes(b"PAR1 and no more")
    score()
    assert os.listdir(str(tmp_path / "out/_batchinfer/tmp")) == []


def test_what_the_heart_is_writing_is_not_taken_for_a_killed_writers(score, tmp_path, monkeypatch):
    class Beating(hold.Heart):
        def start(self):
            scratch = tmp_path / "out/_batchinfer/tmp"
            scratch.mkdir(parents=True, exist_ok=True)
            (scratch / "beat").write_bytes(b"{")
            super().start()

    monkeypatch.setattr(hold, "Heart", Beating)
    assert score()["exit_status"] == 0
    assert os.listdir(str(tmp_path / "out/_batchinfer/tmp")) == ["beat"]
