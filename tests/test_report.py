"""The figures of a run: they balance, whatever was done, adopted, given up or left."""

from __future__ import annotations

import pytest

from batchinfer.ledger import ShardRecord
from batchinfer.plan import Shard, ShardPlan
from batchinfer.report import Outcome, build_report, plan_files
from batchinfer.run_folder import part_name, run_record
from tests.support.folders import plan_of

PLAN = plan_of(10, 20, 30, 40, 50)
RUN = run_record("bundle", PLAN, {})


ACTORS = {"devices": ["gpu 1", "gpu 0", "gpu 0"], "actors_lost": 1, "retries": 2}


def record(shard, rejected=0, adopted=False, **seconds):
    rows = PLAN.shards[shard].num_rows - rejected
    name = part_name(PLAN.shards[shard], RUN["fingerprint"])
    return ShardRecord(shard, name, 100, rows, rejected, seconds, adopted=adopted)


def report(before=(), scored=(), adopted=(), status="done", **more):
    done = {found.shard: found for found in [*before, *scored, *adopted]}
    times = {"seconds": 20.0, "seconds_scoring": 10.0, **more}
    return build_report("out", RUN, PLAN, Outcome(status, done, scored, adopted, **times))


ALL = [record(shard) for shard in range(5)]
RUNS = [
    ("all scored", {"scored": ALL}, (150, 0, 0), (5, 0, 0, 0)),
    ("nothing done", {}, (0, 0, 150), (0, 0, 0, 5)),
    ("all before", {"before": ALL}, (150, 0, 0), (0, 0, 5, 0)),
    (
        "rejects",
        {"scored": [record(0, rejected=10), record(1, rejected=5), *ALL[2:]]},
        (135, 15, 0),
        (5, 0, 0, 0),
    ),
    (
        "some of each",
        {
            "before": [record(0, rejected=1)],
            "scored": [record(1, rejected=2), record(2, adopted=True)],
            "adopted": [record(3, rejected=3, adopted=True)],
        },
        (94, 6, 50),
        (1, 2, 1, 1),
    ),
]


@pytest.mark.parametrize("run, rows, shards", [r[1:] for r in RUNS], ids=[r[0] for r in RUNS])
def test_the_figures_balance(run, rows, shards):
    found = report(**run)
    assert (found["rows_out"], found["rows_rejected"], found["rows_missing"]) == rows
    assert found["rows_in"] == 150 == sum(rows)
    names = ("shards_scored", "shards_adopted", "shards_done_before", "shards_missing")
    assert tuple(found[name] for name in names) == shards
    assert found["shards"] == 5 == sum(shards)


def test_speed_and_stages_are_of_this_run_alone():
    found = report(
        before=[record(0, read=100.0)],
        scored=[record(1, rejected=5, read=0.5, score=1.25), record(2, read=0.25)],
    )
    assert found["rows_per_s"] == 5.0  # 50 rows, rejected ones too, in 10 s
    assert found["stage_seconds"] == {"read": 0.75, "score": 1.25}


def test_a_run_that_scored_nothing_has_no_speed():
    found = report(before=ALL, seconds_scoring=0.0)
    assert (found["rows_per_s"], found["stage_seconds"]) == (0.0, {})
    assert (found["device"], found["actors"], found["actors_lost"], found["retries"]) == (
        "",
        0,
        0,
        0,
    )


def test_devices_are_named_once_and_actors_counted():
    found = report(scored=ALL, **ACTORS)
    assert (found["device"], found["actors"]) == ("gpu 0, gpu 1", 3)
    assert (found["actors_lost"], found["retries"], found["quarantined"]) == (1, 2, [])


def test_shards_given_up_are_shown_with_files_and_errors():
    found = report(scored=ALL[:3], status="gave_up", given_up={4: ("torn", "torn"), 3: ("x",)})
    assert found["quarantined"] == [
        {"shard": 3, "files": ["memory://in/3.parquet"], "errors": ["x"]},
        {"shard": 4, "files": ["memory://in/4.parquet"], "errors": ["torn", "torn"]},
    ]
    assert (found["status"], found["rows_missing"]) == ("gave_up", 90)


def test_of_many_shards_given_up_twenty_are_shown():
    plan = plan_of(*[1] * 30)
    given_up = {shard: ["torn"] for shard in range(30)}
    found = build_report("out", RUN, plan, Outcome("gave_up", {}, given_up=given_up))
    assert [entry["shard"] for entry in found["quarantined"]] == list(range(20))
    assert (found["shards_missing"], found["rows_missing"]) == (30, 30)


def test_why_a_run_stopped_is_told_and_otherwise_left_out():
    assert report(status="stopped", reason="stopped by SIGTERM")["reason"] == "stopped by SIGTERM"
    assert "reason" not in report()


def test_whose_report_it_is():
    found = report(scored=ALL)
    assert (found["output"], found["bundle_digest"], found["fingerprint"]) == (
        "out", "bundle", RUN["fingerprint"],
    )  # fmt: skip


def test_the_files_of_a_shard_are_named_once_in_their_order():
    b, a = PLAN.shards[1].segments + PLAN.shards[0].segments
    plan = ShardPlan((Shard(0, (b, a, b)),))
    assert plan_files(plan, 0) == ["memory://in/1.parquet", "memory://in/0.parquet"]
