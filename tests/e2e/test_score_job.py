"""`jobs/score.py` as a process with Ray's real actors: killed, stopped, run again."""

from __future__ import annotations

import glob
import json
import os
import signal
import time

import numpy as np
import pytest

from tests.support import check, tiny
from tests.support.processes import actors_of, finish, score, short_folder, start_until

FILES, ROWS = 200, 500
IDS = np.arange(FILES * ROWS)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """200 files; with 0.001 MiB a shard, 200 shards."""
    folder = str(tmp_path_factory.mktemp("data"))
    tiny.make_data(folder, FILES, ROWS)
    return folder


@pytest.fixture(scope="module", autouse=True)
def ray_folder():
    with short_folder() as folder:
        os.environ["RAY_TMPDIR"] = folder
        yield
        del os.environ["RAY_TMPDIR"]


@pytest.fixture
def flags(bundle, data, tmp_path):
    return [
        *("--bundle", bundle, "--input", data, "--output", tmp_path / "out", "--keep", "id"),
        *("--num-gpus", 2, "--shard-mib", 0.001, "--batch-rows", 16, "--start-timeout-s", 60),
    ]


def parts(tmp_path):
    return check.snapshot(str(tmp_path / "out"))


def test_a_killed_driver_loses_nothing_and_nothing_is_scored_twice(flags, tmp_path):
    half = lambda: len(parts(tmp_path)) >= FILES // 2  # noqa: E731
    first = start_until(half, "half of the shards", *flags)
    first.kill()  # SIGKILL: no handler, no flush, no lease released
    first.communicate()
    time.sleep(5)  # its actors outlive it by a few seconds and may still commit
    before = parts(tmp_path)
    assert FILES // 2 <= len(before) < FILES

    status, report, err = score(*flags)
    assert status == 0, err
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
    after = parts(tmp_path)
    assert {name: after[name] for name in before} == before  # not one was written again
    assert report["shards_scored"] == FILES - len(before)
    assert report["shards_done_before"] + report["shards_adopted"] == len(before)
    # Each actor had a GPU of its own.
    assert report["device"] == "cpu (logical GPU 0), cpu (logical GPU 1)"

    status, report, err = score(*flags)
    assert (status, report["shards_scored"], report["shards_done_before"]) == (0, 0, FILES)
    assert parts(tmp_path) == after


def test_sigterm_stops_with_75_and_says_how_to_continue(flags, tmp_path):
    process = start_until(lambda: len(parts(tmp_path)) >= 20, "20 shards", *flags)
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    status, report, err = finish(process)
    assert (status, report["status"]) == (75, "stopped")
    assert report["reason"].startswith("stopped by SIGTERM; ")
    assert "run the same command again to continue" in err
    assert time.monotonic() - told < 20
    assert not (tmp_path / "out" / "_SUCCESS").exists()

    status, report, err = score(*flags)
    assert (status, report["rows_out"], report["shards_missing"]) == (0, len(IDS), 0)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_a_killed_actor_is_replaced_and_the_job_succeeds(flags, tmp_path):
    process = start_until(lambda: len(parts(tmp_path)) >= 20, "20 shards", *flags)
    os.kill(actors_of(process.pid)[0], signal.SIGKILL)
    status, report, err = finish(process)
    assert status == 0, err
    assert report["actors_lost"] == 1
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_on_cpu_one_actor_takes_two_cores_and_ray_starts_no_more_than_a_run_needs(flags, tmp_path):
    flags[flags.index("--num-gpus") + 1] = 0
    with short_folder() as folder:
        more = ("--device", "cpu", "--shard-mib", "1")
        status, report, err = score(*flags, *more, RAY_TMPDIR=folder)
        (logs,) = glob.glob(f"{folder}/session_2*/logs") + glob.glob(
            f"{folder}/ray/session_2*/logs"
        )
        started = {os.path.basename(name).split(".")[0] for name in glob.glob(f"{logs}/*.log")}
        workers = len(glob.glob(f"{logs}/worker-*.out"))
    assert status == 0, err
    assert started & {"dashboard", "monitor", "log_monitor", "dashboard_agent"} == {
        "dashboard_agent"
    }
    assert workers == 1  # the actor's; Ray itself starts one a core
    assert (report["device"], report["actors"]) == ("cpu", 1)
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


# What is wrong is told before Ray starts: these take a second each ---------------------------


def test_a_wrong_column_is_one_message_and_exit_status_2(flags, tmp_path):
    status, report, err = score(*flags, "--map", "x=pixels")
    assert (status, report) == (2, None)
    for words in (
        "no column 'pixels' for input x: float32[?, 4]",
        "id: int64",
        "--map INPUT=COLUMN",
    ):
        assert words in err
    assert not (tmp_path / "out").exists()


def test_flags_may_come_from_a_file_and_a_wrong_key_is_told(flags, bundle, tmp_path):
    config = tmp_path / "score.yaml"
    config.write_text(json.dumps({"bundle": bundle, "inputs": "typo"}))
    status, report, err = score("--config", config)
    assert (status, report) == (2, None)
    assert "unknown key(s) inputs; known: " in err
