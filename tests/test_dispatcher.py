"""The dispatcher against an engine with a clock of its own: every second can be counted."""

from __future__ import annotations

from collections import Counter

import pytest

from batchinfer.dispatcher import ActorLostError, Dispatcher
from batchinfer.errors import InputError, StoppedError, TransientStorageError
from batchinfer.options import FaultOptions
from batchinfer.plan import Segment, Shard

FAULTS = FaultOptions(max_attempts=3, stall_timeout_s=60, start_timeout_s=100)


def shards(count, problems=()):
    problem = dict(problems)
    return [
        Shard(i, (Segment(f"f{i}", 1, "v", 0, 1, 0, 10, problem.get(i, "")),)) for i in range(count)
    ]


def record(index):
    return {
        "record": {"shard": index, "name": f"p{index}", "size_bytes": 1, "rows": 10, "rejected": 0}
    }


def failure(kind, error="broken"):
    return {"error": error, "kind": kind, "final": False, "trace": ""}


class FakeEngine:
    """Actors are numbers; a call ends when the clock reaches its time.

    Attributes:
        script: shard index -> what its attempts give, in order: "ok", a failure record, an
            ActorLostError, or "hang"; "ok" when the list is used up.
        starts: what each actor's start gives, in order; started at once by default.
    """

    def __init__(self, script=None, starts=None, capacity=2, seconds=5.0):
        self.now = 0.0
        self.script = {index: list(steps) for index, steps in (script or {}).items()}
        self.starts = list(starts or [])
        self.room = capacity
        self.seconds = seconds
        self.calls = {}  # call -> (time of end, result)
        self.alive = set()
        self.spawned = 0
        self.in_hand = {}  # actor -> shards now
        self.log = []
        self.start_seconds = {}  # actor -> seconds, where they are not 1

    def clock(self):
        return self.now

    def spawn(self):
        self.spawned += 1
        self.alive.add(self.spawned)
        self.in_hand[self.spawned] = []
        return self.spawned

    def start(self, actor):
        result = self.starts.pop(0) if self.starts else {"device": "cpu"}
        lasts = self.start_seconds.get(actor, 1.0)
        return self._call("start", actor, None if result == "never" else lasts, result)

    def score(self, actor, shard):
        self.in_hand[actor].append(shard.index)
        self.log.append((actor, shard.index, tuple(self.in_hand[actor])))
        steps = self.script.get(shard.index, [])
        step = steps.pop(0) if steps else "ok"
        result = record(shard.index) if step == "ok" else step
        lasts = self.seconds * len(self.in_hand[actor])
        return self._call("score", actor, None if step == "hang" else lasts, result, shard.index)

    def progress(self, actor):
        return self._call("progress", actor, 0.1, {})

    def wait(self, calls, timeout_s):
        self.now += timeout_s
        return [call for call in calls if self.calls[call][0] is not None
                and self.calls[call][0] <= self.now]  # fmt: skip

    def result(self, call):
        _, result = self.calls.pop(call)
        kind, actor, index = call[1:]
        if kind == "score":
            self.in_hand[actor].remove(index)
        if isinstance(result, ActorLostError):
            raise result
        return result

    def kill(self, actor):
        self.alive.discard(actor)

    def capacity(self):
        return self.room

    def describe(self):
        return "the cluster has GPU 0"

    def _call(self, kind, actor, lasts, result, index=None):
        call = (len(self.log) + self.now, kind, actor, index)
        self.calls[call] = (None if lasts is None else self.now + lasts, result)
        return call


def dispatch(
    engine, count, faults=FAULTS, actors=None, between=lambda: None, problems=(), second_try=False
):
    done = []
    dispatcher = Dispatcher(
        engine,
        shards(count, problems),
        faults,
        lambda r: done.append(r),
        actors,
        second_try=second_try,
        clock=engine.clock,
    )
    dispatcher.run(between)
    return dispatcher, done


def test_every_shard_comes_back_once_and_no_actor_is_left():
    engine = FakeEngine()
    dispatcher, done = dispatch(engine, 20)
    assert sorted(r.shard for r in done) == list(range(20))
    assert (engine.spawned, engine.alive, dispatcher.blame.given_up) == (2, set(), {})


def test_no_more_actors_than_shards():
    engine = FakeEngine(capacity=50)
    dispatch(engine, 3)
    assert engine.spawned == 3


def test_an_actor_never_has_more_than_one_running_and_one_queued():
    engine = FakeEngine()
    dispatch(engine, 20)
    assert max(len(in_hand) for _, _, in_hand in engine.log) == 2


def test_actors_are_added_when_the_cluster_grows():
    engine = FakeEngine(capacity=1)

    def grow():
        engine.room = 4

    dispatch(engine, 40, between=grow)
    assert engine.spawned == 4


def test_an_idle_actor_is_released_while_the_other_still_works():
    engine = FakeEngine(seconds=50.0)
    alive = []
    dispatch(engine, 3, between=lambda: alive.append(len(engine.alive)))
    assert alive[-2] == 1


def test_a_failed_shard_is_tried_again_at_the_end_and_then_given_up():
    engine = FakeEngine({4: [failure("shard", f"bad {n}") for n in range(3)]})
    dispatcher, done = dispatch(engine, 20)
    assert dispatcher.blame.given_up == {4: ["bad 0", "bad 1", "bad 2"]}
    assert sorted(r.shard for r in done) == [i for i in range(20) if i != 4]
    assert Counter(index for _, index, _ in engine.log)[4] == 3


def test_a_shard_that_works_at_its_last_try_counts_its_attempts():
    engine = FakeEngine({4: [failure("shard"), failure("shard")]})
    dispatcher, done = dispatch(engine, 20)
    assert {r.shard: r.attempts for r in done}[4] == 3
    assert (dispatcher.blame.given_up, dispatcher.blame.retries) == ({}, 2)


def test_an_actor_with_a_broken_process_is_replaced():
    engine = FakeEngine({4: [failure("process", "CUDA error")]})
    _, done = dispatch(engine, 20)
    assert (len(done), engine.spawned) == (20, 3)


def test_shards_in_hand_at_a_death_run_alone_and_the_innocent_is_not_given_up():
    lost = ActorLostError("died")
    engine = FakeEngine({4: [lost] * 9})
    dispatcher, done = dispatch(engine, 20)
    assert list(dispatcher.blame.given_up) == [4]
    assert len(dispatcher.blame.given_up[4]) == 3
    assert len(done) == 19
    alone = [in_hand for _, index, in_hand in engine.log if index == 4][-3:]
    assert alone == [(4,)] * 3


def test_an_actor_without_progress_is_killed_and_its_shard_scored_elsewhere():
    engine = FakeEngine({4: ["hang"]})
    dispatcher, done = dispatch(engine, 8)
    assert (len(done), dispatcher.actors_lost) == (8, 1)
    assert 60 < engine.now < 120  # one stall timeout


def test_no_actor_in_time_stops_the_run_and_says_what_the_cluster_has():
    engine = FakeEngine(starts=["never", "never"])
    with pytest.raises(StoppedError, match="ready for 100 s: the cluster has GPU 0"):
        dispatch(engine, 3)
    assert engine.alive == set()


def test_a_final_error_of_the_first_start_is_told_at_once():
    final = {**failure("shard", "bundle differs"), "final": True}
    engine = FakeEngine(starts=[final])
    with pytest.raises(InputError, match="bundle differs"):
        dispatch(engine, 3)
    assert engine.now < 10


def test_three_failed_starts_stop_the_run():
    engine = FakeEngine(starts=[failure("process", "no memory")] * 9)
    with pytest.raises(StoppedError, match="3 actors in a row did not start; last: no memory"):
        dispatch(engine, 3, actors=1)


def test_one_failed_start_is_made_good():
    engine = FakeEngine(starts=[failure("process", "no memory")])
    _, done = dispatch(engine, 3, actors=1)
    assert (len(done), engine.spawned) == (3, 2)


def test_a_storage_outage_stops_the_run_and_quarantines_nothing_for_good():
    engine = FakeEngine({0: [failure("storage", "503")] * 9})
    with pytest.raises(TransientStorageError, match="503"):
        dispatch(engine, 1)


def test_what_is_raised_between_steps_ends_the_actors():
    engine = FakeEngine()

    def stop():
        raise StoppedError("SIGTERM")

    with pytest.raises(StoppedError):
        dispatch(engine, 5, between=stop)
    assert engine.alive == set()


def test_what_was_planned_with_a_problem_reaches_no_actor():
    engine = FakeEngine()
    dispatcher, done = dispatch(engine, 4, problems={1: "torn"})
    assert (len(done), dispatcher.blame.given_up) == (3, {1: ["f1: torn"]})
    assert 1 not in {index for _, index, _ in engine.log}


def test_a_model_that_never_works_is_given_up_after_20_shards_not_after_all():
    engine = FakeEngine({i: [failure("process", "no kernel")] * 3 for i in range(1000)})
    dispatcher, done = dispatch(engine, 1000)
    assert (len(done), len(dispatcher.blame.given_up)) == (0, 1000)
    assert "first 20 shards failed and none worked" in dispatcher.blame.given_up[999][0]
    assert len(engine.log) <= 40  # what was in hand besides


def test_a_few_shards_that_all_fail_are_tried_to_the_end():
    engine = FakeEngine({i: [failure("shard", "torn")] * 3 for i in range(12)})
    dispatcher, _ = dispatch(engine, 12)
    assert dispatcher.blame.given_up == {i: ["torn"] * 3 for i in range(12)}


def test_a_replacement_that_never_starts_stops_the_run():
    engine = FakeEngine({0: [ActorLostError("died")] * 9}, starts=[{"device": "cpu"}, "never"])
    with pytest.raises(StoppedError, match="ready for 100 s"):
        dispatch(engine, 1, actors=1)


def test_the_death_of_a_node_is_nobodys_fault():
    lost = [ActorLostError("the node has died", node_died=True)] * 9
    engine = FakeEngine({4: list(lost), 7: list(lost)})
    dispatcher, done = dispatch(engine, 20)
    assert (len(done), dispatcher.blame.given_up) == (20, {})


def test_shards_are_left_for_an_actor_that_is_about_to_start():
    late = [{"device": "cpu"}, {"device": "cpu"}]
    engine = FakeEngine(starts=late, seconds=600.0)
    engine.start_seconds = {2: 10.0}
    dispatch(engine, 2, faults=FaultOptions(stall_timeout_s=9999))
    assert [(actor, index) for actor, index, _ in engine.log] == [(1, 0), (2, 1)]


def test_many_failures_after_a_shard_that_worked_stop_nothing():
    engine = FakeEngine({i: [failure("shard")] * 3 for i in range(1, 30)})
    dispatcher, done = dispatch(engine, 30)
    assert (len(done), len(dispatcher.blame.given_up)) == (1, 29)


class WatchedEngine(FakeEngine):
    """Remembers when each actor was asked how far it is; all of them always get on."""

    def __init__(self, actors):
        super().__init__(capacity=actors, seconds=60.0)
        self.asked = {}

    def progress(self, actor):
        self.asked.setdefault(actor, []).append(self.now)
        rows = {index: ("scoring", int(self.now * 2), 0) for index in self.in_hand[actor]}
        return self._call("progress", actor, 0.1, rows)


@pytest.mark.parametrize(
    "actors, stall_timeout_s, every_s",
    [
        (2, 600, 2.0),
        (32, 600, 2.0),
        (64, 600, 4.0),
        (320, 600, 20.0),
        (320, 20, 5.0),  # four times within the time of a stall
        (320, 4, 2.0),
    ],
)
def test_many_actors_are_asked_less_often_but_in_time(actors, stall_timeout_s, every_s):
    engine = WatchedEngine(actors)
    dispatch(engine, actors, FaultOptions(stall_timeout_s=stall_timeout_s))
    assert engine.spawned == actors  # none was taken for stalled
    times = engine.asked[1]
    assert {after - before for before, after in zip(times, times[1:])} == {every_s}


# A second try ------------------------------------------------------------------------------


def tries_of(engine, shard):
    return [actor for actor, index, _ in engine.log if index == shard]


def test_a_slow_shard_is_tried_on_an_idle_actor_and_the_first_to_be_done_counts():
    engine = FakeEngine({3: ["hang"]})
    dispatcher, done = dispatch(engine, 4, second_try=True)
    assert sorted(r.shard for r in done) == [0, 1, 2, 3]
    assert len(set(tries_of(engine, 3))) == 2
    assert (dispatcher.second_tries, dispatcher.actors_lost, engine.alive) == (1, 0, set())
    assert 30 < engine.now < 50  # it is late after 30 s, not after the stall timeout of 60


def test_without_it_the_stall_timeout_decides():
    engine = FakeEngine({3: ["hang"]})
    dispatcher, done = dispatch(engine, 4)
    assert (len(done), dispatcher.second_tries, dispatcher.actors_lost) == (4, 0, 1)


def test_a_shard_that_both_tries_finish_is_counted_once():
    engine = FakeEngine(seconds=40.0)
    _, done = dispatch(engine, 5, second_try=True)
    assert sorted(r.shard for r in done) == [0, 1, 2, 3, 4]
    assert engine.alive == set()


def test_a_failure_of_one_try_is_nothing_as_long_as_the_other_goes_on():
    engine = FakeEngine({3: ["hang", failure("shard"), "ok"]})
    dispatcher, done = dispatch(engine, 4, second_try=True)
    assert sorted(r.shard for r in done) == [0, 1, 2, 3]
    assert dispatcher.blame.given_up == {}


def test_a_shard_that_failed_or_may_have_killed_an_actor_gets_no_second_try():
    engine = FakeEngine({3: [ActorLostError("died"), "hang", "ok"]})
    dispatcher, done = dispatch(engine, 4, second_try=True)
    assert (len(done), dispatcher.second_tries) == (4, 0)


def test_actors_that_no_slow_shard_can_need_are_released():
    engine = FakeEngine({7: ["hang"]}, capacity=4)
    alive = []
    dispatch(engine, 8, second_try=True, between=lambda: alive.append(len(engine.alive)))
    assert alive[-2] == 2  # the slow one, and the one that waits for it or tries it as well


def test_an_actor_does_not_wait_for_shards_that_take_long_anyway():
    engine = FakeEngine(seconds=300.0)
    alive = []
    dispatch(engine, 3, FaultOptions(stall_timeout_s=10_000), second_try=True,
             between=lambda: alive.append(len(engine.alive)))  # fmt: skip
    assert alive[-2] == 1
