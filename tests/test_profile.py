"""The trace of a run: tracks, times from zero, what is left out; and one of a real run."""

from __future__ import annotations

import json

from batchinfer import profile
from batchinfer.profile import Profile
from tests.runs.conftest import data, score  # noqa: F401  (fixtures)


def events(found, phase):
    return [event for event in json.loads(found.to_json())["traceEvents"] if event["ph"] == phase]


def test_steps_lie_on_tracks_of_their_actors_in_microseconds_since_the_first():
    found = Profile()
    found.add("a", 7, [("read", "read 0", 100.0, 100.5, 0), ("score", "score 1", 100.5, 101.0, 64)])
    found.add("b", 8, [("read", "read 0", 100.25, 100.5, 0)])
    assert events(found, "X") == [
        {"name": "read", "ph": "X", "ts": 0.0, "dur": 500000.0, "pid": 1, "tid": 1,
         "args": {"shard": 7, "rows": 0}},
        {"name": "score", "ph": "X", "ts": 500000.0, "dur": 500000.0, "pid": 1, "tid": 2,
         "args": {"shard": 7, "rows": 64}},
        {"name": "read", "ph": "X", "ts": 250000.0, "dur": 250000.0, "pid": 2, "tid": 3,
         "args": {"shard": 8, "rows": 0}},
    ]  # fmt: skip
    names = [(e["name"], e["pid"], e["args"]) for e in events(found, "M")]
    assert names[:3] == [
        ("process_name", 1, {"name": "a"}),
        ("process_name", 2, {"name": "b"}),
        ("thread_name", 1, {"name": "read 0"}),
    ]


def test_what_is_too_much_is_counted(monkeypatch):
    monkeypatch.setattr(profile, "MOST_SPANS", 3)
    found = Profile()
    found.add("a", 1, [("read", "read 0", 1.0, 2.0, 0)] * 2)
    found.add("a", 2, [("read", "read 0", 1.0, 2.0, 0)] * 4)
    assert len(events(found, "X")) == 3
    assert json.loads(found.to_json())["otherData"] == {"spans_left_out": 3}


def test_a_run_with_a_profile_shows_every_row_in_each_stage(score, tmp_path):  # noqa: F811
    score(profile=True)
    trace = json.loads((tmp_path / "out" / "_batchinfer" / "profile.json").read_text())
    found = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    rows = {stage: sum(e["args"]["rows"] for e in found if e["name"] == stage) for stage in
            ("score", "encode")}  # fmt: skip
    assert rows == {"score": 3000, "encode": 3000}
    assert {e["name"] for e in found} == {"read", "wait", "score", "encode", "write"}
    tracks = {}
    for event in sorted(found, key=lambda e: e["ts"]):
        before = tracks.get((event["pid"], event["tid"]), 0.0)
        assert (
            event["ts"] >= before - 1000
        )  # steps of one track never overlap; clocks are read twice
        tracks[event["pid"], event["tid"]] = event["ts"] + event["dur"]


def test_a_run_without_one_writes_none(score, tmp_path):  # noqa: F811
    score()
    assert not (tmp_path / "out" / "_batchinfer" / "profile.json").exists()
