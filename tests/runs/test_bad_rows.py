"""Whole runs with rows that the model's own ops refuse, and how many of them are borne."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.bundle import write_bundle
from batchinfer.options import FaultOptions
from tests.runs.conftest import FAULTS
from tests.support import check, tiny

ROWS = 1000  # that the model knows; a larger id is refused
SIGNATURE = {
    "inputs": {"id": {"tensor": "id:0", "dtype": "int64", "shape": [None]}},
    "outputs": {"y": {"tensor": "y:0", "dtype": "float32", "shape": [None, 2]}},
}


@pytest.fixture(scope="session")
def lookup(tmp_path_factory):
    """The folder of a bundle that gathers the rows of a table, as an embedding does."""
    manifest = {"signature": SIGNATURE, "parity": {"passed": True}}
    folder = str(tmp_path_factory.mktemp("bundle") / "lookup")
    return write_bundle(folder, manifest, _save).path


def _save(folder):
    from batchinfer.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        id_ = tf.placeholder(tf.int64, [None], name="id")
        table = tf.get_variable("w", initializer=tiny.expected(np.arange(ROWS)), use_resource=True)
        y = tf.identity(tf.nn.embedding_lookup(table, id_), name="y")
        session.run(tf.global_variables_initializer())
        tf.saved_model.simple_save(session, os.path.join(folder, "new"), {"id": id_}, {"y": y})
    for name in os.listdir(os.path.join(folder, "new")):
        os.rename(os.path.join(folder, "new", name), os.path.join(folder, name))
    os.rmdir(os.path.join(folder, "new"))


@pytest.fixture
def poisoned(tmp_path, score, lookup):
    """Write 16 files of 1,000 rows, with ids that the model does not know at some, and score them.

    Args of what it gives:
        poison: file -> rows.
    """

    def call(poison, faults=FAULTS, **changes):
        folder = tmp_path / "poisoned"
        folder.mkdir(exist_ok=True)
        for number in range(16):
            id_ = np.arange(ROWS)
            id_[list(poison.get(number, ()))] = ROWS
            key = pa.array(np.arange(number * ROWS, (number + 1) * ROWS))
            path = str(folder / f"{number:02d}.parquet")
            if not os.path.exists(path):
                pq.write_table(pa.table({"id": id_, "key": key}), path)
        options = {"bundle": lookup, "inputs": (str(folder),), "keep": ("key",), **changes}
        return score(faults=faults, **options)

    return call


def rejects(output):
    folder = os.path.join(output, "_batchinfer", "rejects")
    tables = [pq.ParquetFile(os.path.join(folder, n)).read(use_threads=False)
              for n in sorted(os.listdir(folder))]  # fmt: skip
    return pa.concat_tables(tables)


def keys_scored(output):
    return check.read_parts(output).column("key").to_pylist()


@pytest.mark.parametrize("batch_rows", [64, None])
def test_one_poison_row_costs_one_row(poisoned, tmp_path, batch_rows):
    report = poisoned({5: [17]}, batch_rows=batch_rows)
    assert (report["exit_status"], report["rows_out"], report["rows_rejected"]) == (0, 15_999, 1)
    out = str(tmp_path / "out")
    assert os.path.exists(os.path.join(out, "_SUCCESS"))
    assert keys_scored(out) == [key for key in range(16_000) if key != 5017]
    (row,) = rejects(out).to_pylist()
    assert (row["_row"], row["key"]) == (17, 5017)
    assert row["_file"].endswith("05.parquet")
    assert row["_reason"].startswith(
        "the model refuses it: InvalidArgumentError: indices[0] = 1000"
    )


def test_rows_of_both_kinds_are_rejected_in_input_order(poisoned, tmp_path):
    path = tmp_path / "mixed.parquet"
    ids = pa.array([0, ROWS, None, 3, ROWS, None, 6], pa.int64())
    pq.write_table(pa.table({"id": ids, "key": np.arange(7)}), str(path))
    report = poisoned({}, inputs=(str(path),))
    assert (report["exit_status"], report["rows_out"]) == (0, 3)
    found = rejects(str(tmp_path / "out"))
    assert found.column("_row").to_pylist() == [1, 2, 4, 5]
    assert [words[:5] for words in found.column("_reason").to_pylist()] == [
        "the m", "id: n", "the m", "id: n",
    ]  # fmt: skip


def test_a_model_that_refuses_every_row_is_no_success_and_ends_soon(poisoned, tmp_path):
    report = poisoned({number: range(ROWS) for number in range(16)})
    assert (report["exit_status"], report["rows_out"], report["shards_missing"]) == (1, 0, 16)
    with open(tmp_path / "out" / "_batchinfer" / "quarantine.json") as file:
        (first, *_) = json.load(file)["shards"]
    assert "the model refuses 32 rows from all over a batch" in first["errors"][0]


def test_fail_ends_the_run_and_reject_continues_it(poisoned, tmp_path):
    faults = FaultOptions(**{**FAULTS.__dict__, "on_bad_row": "fail"})
    report = poisoned({5: [17]}, faults)
    assert (report["exit_status"], report["retries"]) == (1, 0)
    assert "05.parquet: row 17: the model refuses it" in report["reason"]
    assert not os.path.exists(tmp_path / "out" / "_SUCCESS")
    before = check.snapshot(str(tmp_path / "out"))
    report = poisoned({5: [17]})
    assert (report["exit_status"], report["rows_out"]) == (0, 15_999)
    after = check.snapshot(str(tmp_path / "out"))
    assert {name: after[name] for name in before} == before


def test_fail_does_not_bear_a_row_that_cannot_be_fed_either(poisoned, tmp_path):
    path = tmp_path / "null.parquet"
    pq.write_table(pa.table({"id": pa.array([1, None], pa.int64()), "key": [0, 1]}), str(path))
    faults = FaultOptions(**{**FAULTS.__dict__, "on_bad_row": "fail"})
    report = poisoned({}, faults, inputs=(str(path),))
    assert (report["exit_status"], report["rows_out"]) == (1, 0)
    assert "null.parquet: row 1: id: null (--on-bad-row fail)" in report["reason"]


@pytest.mark.parametrize("limit", [{"max_bad_rows": 2}, {"max_bad_fraction": 2.9 / 16_000}])
def test_more_bad_rows_than_allowed_end_the_run_until_more_are(poisoned, tmp_path, limit):
    faults = FaultOptions(**{**FAULTS.__dict__, **limit})
    poison = {0: [1], 1: [2], 15: [3]}
    for _ in range(2):  # the second time it has begun with too many or ends alike
        report = poisoned(poison, faults)
        assert report["exit_status"] == 1
        assert "3 of" in report["reason"] and "At most 2 may be" in report["reason"]
        assert not os.path.exists(tmp_path / "out" / "_SUCCESS")
    more = FaultOptions(**{**FAULTS.__dict__, "max_bad_rows": 3})
    report = poisoned(poison, more)
    assert (report["exit_status"], report["rows_out"]) == (0, 15_997)
    assert os.path.exists(tmp_path / "out" / "_SUCCESS")


def test_as_many_bad_rows_as_allowed_are_a_success(poisoned):
    faults = FaultOptions(**{**FAULTS.__dict__, "max_bad_rows": 1, "max_bad_fraction": 1.0})
    assert poisoned({3: [3]}, faults)["exit_status"] == 0


def test_more_failed_shards_than_allowed_end_the_run(poisoned, tmp_path):
    (tmp_path / "poisoned").mkdir()
    for name in ("00", "01"):
        (tmp_path / "poisoned" / f"{name}.parquet").write_bytes(b"PAR1 no more")
    faults = FaultOptions(**{**FAULTS.__dict__, "max_failed_shards": 1})
    report = poisoned({}, faults)
    assert report["exit_status"] == 1
    assert "2 shards were given up, --max-failed-shards is 1" in report["reason"]
    assert report["rows_out"] == 0
    enough = FaultOptions(**{**FAULTS.__dict__, "max_failed_shards": 2})
    report = poisoned({}, enough)
    assert (report["exit_status"], report["rows_out"]) == (1, 14_000)
