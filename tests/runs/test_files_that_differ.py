"""Files that differ from each other, through whole runs on a local folder; actors are threads."""

from __future__ import annotations

import pytest

from batchinfer.arrow import pa, pq
from batchinfer.dispatcher import ActorLostError
from batchinfer.driver import run
from batchinfer.errors import SchemaError
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

FAULTS = FaultOptions(lease_ttl_s=0.5, retry_budget_s=1.0)


@pytest.fixture
def score(bundle, tmp_path):
    """Score tmp_path/in into tmp_path/out; options can be overridden."""

    def call(backend=None, **changes):
        options = {
            "bundle": bundle, "inputs": (str(tmp_path / "in"),), "output": str(tmp_path / "out"),
            "keep": ("id",),
        }  # fmt: skip
        options.update(changes)
        backend = backend or ThreadBackend()
        return run(ScoreOptions(**options), ClusterOptions(), FAULTS, backend.backend())

    return call


def put(tmp_path, *tables, **options):
    """Write tables as 0.parquet, 1.parquet, ... of tmp_path/in."""
    (tmp_path / "in").mkdir()
    for number, table in enumerate(tables):
        pq.write_table(table, str(tmp_path / "in" / f"{number}.parquet"), **options)


def rows(first, number=20, **columns):
    """Rows first, first + 1, ...; columns replace or join those of the tiny data."""
    table = tiny.table(first, number).drop(["name"])
    for name, values in columns.items():
        if name in table.column_names:
            table = table.drop([name])
        table = table.append_column(name, values)
    return table


def kept(tmp_path, name):
    return check.read_parts(str(tmp_path / "out")).column(name)


def counts(report):
    return {name: report[f"rows_{name}"] for name in ("in", "out", "rejected", "missing")}


def test_rows_of_a_file_that_does_not_fit_are_missing_not_forgotten(score, tmp_path):
    put(tmp_path, rows(0), rows(20).drop(["x"]), rows(40))
    report = score()
    assert counts(report) == {"in": 60, "out": 40, "rejected": 0, "missing": 20}
    assert kept(tmp_path, "id").to_pylist() == [*range(20), *range(40, 60)]


def test_nanoseconds_are_kept(score, tmp_path):
    stamps = pa.array([1_600_000_000_000_000_001 + i for i in range(20)], pa.timestamp("ns"))
    put(tmp_path, rows(0, at=stamps), version="2.6")
    assert score(keep=("at",))["exit_status"] == 0
    assert kept(tmp_path, "at").cast(pa.int64()).to_pylist() == stamps.cast(pa.int64()).to_pylist()


def test_values_that_the_model_would_see_as_others_are_rejected(score, tmp_path):
    x = pa.array([[(1 << 24) + 1, 0, 0, 0], [1, 0, 0, 0]])
    put(tmp_path, pa.table({"id": [0, 1], "x": x}))
    assert counts(score()) == {"in": 2, "out": 1, "rejected": 1, "missing": 0}
    assert kept(tmp_path, "y").to_pylist() == [[1.0, 10.0]]


# Kept columns -----------------------------------------------------------------------------


def ids_as(kind, first):
    table = rows(first)
    return rows(first, id=table.column("id").cast(kind))


def test_a_narrow_first_file_does_not_cost_the_others(score, tmp_path):
    files = [ids_as(kind, n * 20) for n, kind in enumerate([pa.int32(), pa.int64(), pa.uint8()])]
    put(tmp_path, rows(1000, id=pa.nulls(20)), *files)
    report = score()
    assert (report["exit_status"], report["rows_out"]) == (0, 80)
    assert kept(tmp_path, "id").type == pa.int64()
    assert kept(tmp_path, "id").to_pylist() == [None] * 20 + list(range(60))


def test_kept_columns_that_no_type_holds_are_refused_before_anything_is_written(score, tmp_path):
    put(tmp_path, rows(0), ids_as(pa.string(), 20))
    with pytest.raises(SchemaError, match=r"'id' is string in 1 file\(s\), such as .*1\.parquet"):
        score()
    assert not (tmp_path / "out").exists()


def test_a_rerun_takes_the_types_of_the_run_and_opens_no_file(score, tmp_path, monkeypatch):
    put(tmp_path, ids_as(pa.int32(), 0), ids_as(pa.int64(), 20))

    def lose_all(engine):
        def die(actor, shard):
            raise ActorLostError("killed by the test")

        engine.before = die

    assert score(ThreadBackend(lose_all))["rows_out"] == 0
    monkeypatch.setattr("batchinfer.input_files.read_footer", None)
    assert score()["rows_out"] == 40
    assert kept(tmp_path, "id").type == pa.int64()
