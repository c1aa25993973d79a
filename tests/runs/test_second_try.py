"""Whole runs in which one actor is slow on purpose."""

from __future__ import annotations

import threading

import pytest

from batchinfer import stragglers
from batchinfer.storage.local import LocalStore
from tests.runs.support import IDS
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

SLOW = 9  # the last of ten shards


@pytest.fixture
def slow(monkeypatch):
    """A backend whose first try of one shard waits for `go`, and tells `ended` its result's end."""
    monkeypatch.setattr(stragglers, "AT_LEAST_S", 0.3)
    go, ended = threading.Event(), threading.Event()

    def prepare(engine):
        first = []

        def before(actor, shard):
            if shard.index == SLOW and not first:
                first.append(actor)
                assert go.wait(30)

        engine.before = before
        engine.after = lambda actor, shard: ended.set() if [actor] == first else None

    backend = ThreadBackend(prepare)
    backend.go, backend.ended = go, ended
    yield backend
    go.set()


def test_an_idle_actor_finishes_what_the_slow_one_has_and_a_late_try_changes_nothing(
    score, slow, tmp_path
):
    report = score(slow)
    out = str(tmp_path / "out")
    assert (report["exit_status"], slow.engine.scored.count(SLOW)) == (0, 1)  # the slow one waits
    check.assert_exact(out, IDS, tiny.expected(IDS))
    before = check.snapshot(out)
    slow.go.set()
    assert slow.ended.wait(30)
    assert check.snapshot(out) == before


def test_a_store_that_overwrites_gets_no_second_try(score, slow, tmp_path, monkeypatch):
    monkeypatch.setattr(LocalStore, "creates_exclusively", lambda *args: False)
    threading.Timer(2.0, slow.go.set).start()
    report = score(slow)
    assert (report["exit_status"], slow.engine.scored.count(SLOW)) == (0, 1)
    assert slow.ended.is_set()  # it was waited for
    check.assert_exact(str(tmp_path / "out"), IDS, tiny.expected(IDS))
