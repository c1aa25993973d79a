"""Whole runs, actors on threads: which rows come out, in which order, and which are set apart."""

from __future__ import annotations

import glob
import json
import os

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.read_size import READ_ROWS
from tests.runs.support import IDS
from tests.support import check, tiny
from tests.support.threads import ThreadBackend


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


def test_a_run_that_rejected_every_row_is_no_success(score, tmp_path):
    table = pa.table({"id": [1, 2], "x": pa.array([None, None], pa.list_(pa.float32()))})
    pq.write_table(table, str(tmp_path / "bad.parquet"))
    for _ in range(2):  # and the same command says the same
        report = score(inputs=(str(tmp_path / "bad.parquet"),))
        assert (report["rows_out"], report["rows_rejected"]) == (0, 2)
        assert (report["exit_status"], report["status"]) == (1, "gave_up")
        assert report["reason"].startswith("2 of 2 rows were rejected; ")
        assert not (tmp_path / "out" / "_SUCCESS").exists()


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


def test_memory_stays_with_the_process_but_runs_the_same(score, bundle):
    report = score(output="memory://bucket/predictions")
    assert (report["rows_out"], report["exit_status"]) == (3000, 0)
    assert score(output="memory://bucket/predictions")["shards_done_before"] == 10


def measured_rows(output):
    (path,) = glob.glob(os.path.join(output, "_batchinfer", "batch", "*.json"))
    with open(path) as file:
        return [int(size) for size in json.load(file)["rows_per_s"]]


def test_a_tiny_first_file_does_not_decide_the_batch_of_all(score, tmp_path):
    pq.write_table(tiny.table(0, 10), str(tmp_path / "a.parquet"))
    pq.write_table(tiny.table(10, 2990), str(tmp_path / "b.parquet"))
    inputs = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    report = score(inputs=inputs, shard_bytes=1, batch_rows=None)
    assert report["shards"] == 2
    assert max(measured_rows(str(tmp_path / "out"))) > 5
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))


def test_the_batch_is_measured_with_the_first_rows_that_can_be_fed(score, tmp_path):
    """All of the first batch is rejected; without a size, two shards would settle one at once."""
    bad = tiny.table(0, READ_ROWS)
    bad = bad.set_column(bad.column_names.index("x"), "x", pa.nulls(READ_ROWS, bad["x"].type))
    pq.write_table(bad, str(tmp_path / "a.parquet"))
    pq.write_table(tiny.table(READ_ROWS, 100), str(tmp_path / "b.parquet"))
    inputs = (str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet"))
    report = score(inputs=inputs, shard_bytes=None, batch_rows=None)
    assert (report["shards"], report["rows_rejected"], report["rows_out"]) == (1, READ_ROWS, 100)
    assert measured_rows(str(tmp_path / "out"))
