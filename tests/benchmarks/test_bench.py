"""The benchmark runs, counts rows, compares predictions, and takes ratios within a round."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from batchinfer.arrow import pq
from benchmarks import data
from benchmarks.compare import max_absdiff
from benchmarks.measure import Measurement
from benchmarks.rounds import Results
from benchmarks.systems.arrays import to_array, to_table
from benchmarks.table import results_table, targets_table
from benchmarks.task import Task, read_events
from benchmarks.workloads import WORKLOADS

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def measured(rows_per_s, cpu_s=1.0):
    return Measurement(1000, 1000 / rows_per_s, 9.0, cpu_s, 9.0, 500.0, None, 4.0)


def results(*rounds):
    return Results("tabular", 1000, 2, [{k: measured(v) for k, v in one.items()} for one in rounds])


def task_of(tmp_path, workload="tabular"):
    found = WORKLOADS[workload]
    return Task(
        str(tmp_path / "data"), 1, "", str(tmp_path / "out"), str(tmp_path / "events"),
        found.column, found.dtype, found.row_shape, "x:0", "y:0", found.num_outputs, 8,
    )  # fmt: skip


def test_the_whole_way_at_a_thousandth_of_the_rows(tmp_path):
    tuning = {"batch_rows": 512, "parallelism": 0, "rows_per_s": 1.0}
    (tmp_path / "sweep.json").write_text(json.dumps({"tabular/raw": tuning}))
    command = [sys.executable, "-m", "benchmarks.bench", "--workloads", "tabular"]
    command += ["--systems", "raw,storage,batchinfer_plain", "--rounds", "1", "--scale", "0.001"]
    command += ["--no-append", "--folder", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()
    lines = run.stdout.decode().splitlines()
    assert "### tabular: 2,000 rows in 1 files" in lines
    rows = {line.split(" | ")[0][2:]: line.split(" | ") for line in lines if line.endswith("| 1 |")}
    assert sorted(rows) == ["batchinfer_plain", "raw", "storage"]
    assert float(rows["batchinfer_plain"][9]) < 1e-5  # compared with raw's, by key
    assert [rows["raw"][2], rows["raw"][9]] == ["1.00", "-"]
    kept = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [(one["system"], one["rows"]) for one in kept] == [
        ("raw", 2000), ("storage", 2000), ("batchinfer_plain", 2000)
    ]  # fmt: skip
    assert all(one["cpu_s"] <= one["total_cpu_s"] and one["peak_mb"] > 20 for one in kept)


def test_ratios_are_taken_within_a_round():
    found = results({"raw": 100, "storage": 300}, {"raw": 10, "storage": 20}, {"raw": 50})
    assert found.paired(["storage", "raw"], lambda a, b: a / b) == 2.5  # of 3 and 2
    assert found.paired(["batchinfer", "raw"], lambda a, b: a / b) is None
    assert found.median("raw", lambda one: one.rows_per_s) == pytest.approx(50)


def test_what_was_asked_for_stands_beside_what_was_reached():
    found = results({"raw": 100, "storage": 100, "batchinfer": 130, "ray_data_tuned": 100})
    text = targets_table({"tabular": found})
    assert "| tabular | rows/s, x tuned Ray Data | >= 1.3 | 1.3 | reached |" in text
    assert "| tabular | CPU s per million rows | <= 2 | 1e+03 | **short** |" in text
    assert "| tabular | rows/s, x Ray Data's defaults | >= 4 | - | not measured |" in text
    assert "image" not in text


def test_a_system_that_failed_stands_in_the_table_with_the_reason():
    found = results({"raw": 100})
    found.failures["naive"] = "exit status 1\nand more"
    text = results_table(found, ["raw", "naive"])
    assert "| naive | failed |" in text
    assert "naive failed: exit status 1\n" in text


def test_the_first_of_each_mark_counts(tmp_path):
    task = task_of(tmp_path)
    task.mark("ready", actor=1)
    task.mark("ready", actor=2)
    task.mark("written", rows=7)
    found = read_events(task.events)
    assert found["ready"]["actor"] == 1
    assert found["written"]["rows"] == 7


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_the_data_of_a_workload_is_seeded_and_fits_its_input(name, tmp_path):
    workload = WORKLOADS[name]
    arrays = []
    for folder in ("data", "again"):
        data.write_once(str(tmp_path / folder), workload.values, workload.column, 5, 3, 2, seed=1)
        files = sorted(os.listdir(tmp_path / folder))
        assert files == ["data-00000.parquet", "data-00001.parquet"]
        tables = [pq.ParquetFile(str(tmp_path / folder / one)).read() for one in files]
        assert [table.column("id").to_pylist() for table in tables] == [[0, 1, 2], [3, 4]]
        arrays.append(to_array(tables[0].column(workload.column), task_of(tmp_path, name)))
    assert arrays[0].shape == (3, *workload.row_shape)
    assert arrays[0].dtype == (object if workload.dtype == "string" else workload.dtype)
    assert np.array_equal(arrays[0], arrays[1])


def test_more_names_of_a_file_are_no_more_bytes(tmp_path):
    workload = WORKLOADS["tabular"]
    folder = str(tmp_path / "data")
    data.write_once(folder, workload.values, workload.column, 5, 3, 2, seed=1)
    repeated = data.repeat(folder, 3)
    task = Task.from_json(json.dumps({**json.loads(task_of(tmp_path).to_json()), "data": repeated}))
    assert [len(task.files()), len(task.distinct_files())] == [6, 2]


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ([2, 0, 1], None),
        ([2, 0, 1, 0, 2, 1], None),  # every row twice: files with two names
        ([2, 0], "written 0 times, another 1 times"),
        ([0, 0, 1, 2], "written 1 times, another 2 times"),
        ([0, 1, 3], "expected keys 0 to 2; found 0 to 3"),
    ],
)
def test_predictions_are_compared_by_key(keys, problem, tmp_path):
    expected = np.array([[0, 1], [10, 11], [20, 21]], np.float32)
    np.savez(str(tmp_path / "raw.npz"), id=np.arange(3), probabilities=expected)
    values = expected[np.array(keys) % 3].copy()
    values[0, 1] += 0.25
    pq.write_table(to_table(np.array(keys), values), str(tmp_path / "part.parquet"))
    if problem is None:
        assert max_absdiff(str(tmp_path), str(tmp_path / "raw.npz")) == 0.25
    else:
        with pytest.raises(ValueError, match=problem):
            max_absdiff(str(tmp_path), str(tmp_path / "raw.npz"))
