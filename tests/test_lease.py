"""One driver per output: who waits, who is refused, who takes over, who finds out."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from batchinfer.errors import LeaseLostError, StoppedError, TransientStorageError
from batchinfer.lease import Heart, acquire
from batchinfer.run_folder import RunFolder
from batchinfer.storage import Retry, open_store
from batchinfer.storage.memory import MemoryStore
from tests.support.folders import new_folder

TTL_S = 15.0


class FakeTime:
    """A clock that only sleep moves; `on_sleep` is what others do meanwhile."""

    def __init__(self, on_sleep=lambda: None, now=1000.0):
        self.now = now
        self.slept_s = 0.0
        self._on_sleep = on_sleep

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept_s += seconds
        self._on_sleep()


def take(folder, ttl_s=TTL_S, time=None):
    time = time or FakeTime()
    return acquire(folder, ttl_s, time.sleep, time.clock)


def no_sleep(seconds):
    raise AssertionError(f"slept {seconds} s")


def claims(folder):
    names = folder.list()
    return sorted(name.split("/")[-1].split(".")[0] for name in names if name.endswith(".claim"))


def heartbeat(folder, epoch):
    return folder.read_json(f"_batchinfer/lease/{epoch:06d}.hb")


def stat(pid):
    """The fields of /proc/<pid>/stat after the name, the state first."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def test_an_empty_folder_is_taken_at_once():
    folder = new_folder()
    lease = acquire(folder, TTL_S, no_sleep)
    lease.check()
    assert (lease.epoch, claims(folder)) == (1, ["000001"])


def test_a_released_lease_is_taken_at_once():
    folder = new_folder()
    take(folder).release()
    second = acquire(folder, TTL_S, no_sleep)
    second.check()
    assert (second.epoch, claims(folder)) == (2, ["000001", "000002"])


def test_a_heartbeat_says_who_and_how_often_but_never_when():
    folder = new_folder()
    lease = take(folder)
    lease.beat(7)
    found = heartbeat(folder, 1)
    assert sorted(found) == ["counter", "host", "machine", "pid", "started"]
    assert (found["counter"], found["pid"]) == (7, os.getpid())
    # The start of this process since the boot of its machine: not a time of day.
    assert found["started"] == stat(os.getpid())[19]


def test_a_driver_is_refused_while_the_holder_beats_and_told_who_it_is():
    folder = new_folder()
    first = take(folder)
    counter = iter(range(1, 100))
    time = FakeTime(on_sleep=lambda: first.beat(next(counter)))
    host = os.uname().nodename
    with pytest.raises(StoppedError, match=f"process {os.getpid()} on {host}, epoch 1"):
        take(folder, time=time)
    first.check()
    assert claims(folder) == ["000001"]
    assert time.slept_s < TTL_S


def test_a_holder_that_beats_only_at_the_last_moment_is_still_the_holder():
    folder = new_folder()
    first = take(folder)
    time = FakeTime(on_sleep=lambda: time.now >= 1000 + TTL_S - 1.5 and first.beat(1))
    with pytest.raises(StoppedError, match="another driver is at work"):
        take(folder, time=time)
    first.check()


@pytest.mark.parametrize("now", [0.0, 1e9])
def test_a_holder_that_stands_still_for_the_ttl_on_my_clock_is_taken_over(now):
    folder = new_folder()
    first = take(folder, time=FakeTime(now=5000.0))
    time = FakeTime(now=now)
    second = take(folder, time=time)
    assert second.epoch == 2
    assert TTL_S <= time.slept_s <= TTL_S * 1.2
    second.check()
    with pytest.raises(LeaseLostError, match=r"took memory://.* over \(epoch 2, this one was 1\)"):
        first.check()


def test_a_holder_that_died_between_its_claim_and_its_first_beat_is_waited_for():
    folder = new_folder()
    folder.create_json("_batchinfer/lease/000003.abc.claim", {})
    time = FakeTime()
    assert take(folder, time=time).epoch == 4
    assert time.slept_s >= TTL_S


def test_a_holder_whose_first_beat_comes_while_i_wait_is_the_holder():
    folder = new_folder()
    folder.create_json("_batchinfer/lease/000001.abc.claim", {})
    first_beat = {"counter": 0, "host": "elsewhere", "pid": 42}
    time = FakeTime(lambda: folder.put_json("_batchinfer/lease/000001.hb", first_beat))
    with pytest.raises(StoppedError, match="process 42 on elsewhere"):
        take(folder, time=time)


def test_a_holder_that_releases_while_i_wait_is_not_waited_for_any_longer():
    folder = new_folder()
    first = take(folder)
    time = FakeTime(on_sleep=first.release)
    assert take(folder, time=time).epoch == 2
    assert time.slept_s < TTL_S / 2


# Holders that are other processes ---------------------------------------------------------

HOLD_AND_DIE = """
import os, sys
from batchinfer.lease import acquire
from batchinfer.run_folder import RunFolder
from batchinfer.storage import open_store
print(acquire(RunFolder(*open_store(sys.argv[1])), 15.0).epoch, flush=True)
sys.stdin.read()
os._exit(9)
"""


@pytest.fixture
def other_process(tmp_path):
    """A process that holds the lease of tmp_path and dies without a word when told."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"1\n"
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_dead_process_of_this_machine_is_not_waited_for(other_process, tmp_path):
    other_process.stdin.close()
    other_process.wait()
    folder = RunFolder(*open_store(str(tmp_path)))
    assert acquire(folder, TTL_S, no_sleep).epoch == 2


def test_a_process_that_died_and_was_not_waited_for_counts_as_dead(other_process, tmp_path):
    other_process.stdin.close()
    state = ""
    while state != "Z":  # a zombie keeps its process id until its parent asks
        state = stat(other_process.pid)[0]
    folder = RunFolder(*open_store(str(tmp_path)))
    assert acquire(folder, TTL_S, no_sleep).epoch == 2


def test_a_living_process_of_this_machine_is_waited_for(other_process, tmp_path):
    folder = RunFolder(*open_store(str(tmp_path)))
    time = FakeTime()
    assert take(folder, time=time).epoch == 2
    assert time.slept_s >= TTL_S


@pytest.mark.parametrize(
    "change",
    [{"machine": "another boot"}, {"machine": None}, {"pid": None}],
    ids=["another machine", "a machine that cannot tell", "no process id"],
)
def test_only_this_machine_can_tell_that_a_process_is_dead(change):
    folder = new_folder()
    take(folder)
    found = heartbeat(folder, 1)
    folder.put_json("_batchinfer/lease/000001.hb", {**found, "started": "1", **change})
    time = FakeTime()
    take(folder, time=time)
    assert time.slept_s >= TTL_S


def test_a_process_id_that_went_to_another_process_does_not_hold_the_lease():
    folder = new_folder()
    take(folder)
    folder.put_json("_batchinfer/lease/000001.hb", {**heartbeat(folder, 1), "started": "1"})
    assert acquire(folder, TTL_S, no_sleep).epoch == 2


# Ties -------------------------------------------------------------------------------------


class TiedStore(MemoryStore):
    """Another driver claims the same epoch in the same instant, `times` times."""

    def __init__(self, times):
        super().__init__(Retry(0.0))
        self.times = times

    def create(self, path, data):
        if path.endswith(".claim") and self.times:
            self.times -= 1
            epoch = path.split("/")[-1].split(".")[0]
            super().create(f"{os.path.dirname(path)}/{epoch}.0123.claim", b"{}")
        return super().create(path, data)


def test_a_tie_is_held_by_nobody_and_the_next_epoch_decides():
    folder = new_folder(TiedStore(times=1))
    time = FakeTime()
    lease = take(folder, time=time)
    lease.check()
    assert (lease.epoch, claims(folder)) == (2, ["000001", "000001", "000002"])
    assert heartbeat(folder, 1) == {"released": True}
    assert time.slept_s <= TTL_S / 5


def test_ties_without_end_stop_the_driver():
    folder = new_folder(TiedStore(times=99))
    with pytest.raises(StoppedError, match="several drivers started on memory://"):
        take(folder)


def test_of_one_epoch_claimed_twice_neither_holder_passes_the_check():
    folder = new_folder()
    lease = take(folder)
    folder.create_json("_batchinfer/lease/000001.0123.claim", {})
    with pytest.raises(LeaseLostError):
        lease.check()


def test_of_drivers_that_start_at_once_at_most_one_holds_the_lease():
    folder = new_folder()
    held, refused = [], []
    barrier = threading.Barrier(6)

    def start():
        barrier.wait()
        try:
            lease = acquire(folder, 1.0)
            heart = Heart(lease, 1.0)
            heart.start()
            held.append((lease, heart))
        except StoppedError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = 0
    for lease, heart in held:
        heart.stop()
        try:
            lease.check()
            passed += 1
        except LeaseLostError:
            continue
    assert len(held) + len(refused) == 6
    assert passed <= 1
    assert len(held) >= 1


# While a driver works ---------------------------------------------------------------------


def test_a_holder_whose_claims_were_deleted_is_told_so():
    folder = new_folder()
    lease = take(folder)
    for name in folder.list():
        folder.store.delete(folder.at(name))
    with pytest.raises(LeaseLostError, match=r"the claims in .* were deleted"):
        lease.check()


def wait_until(holds, seconds=5.0):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.005)


def test_a_heart_beats_until_it_is_stopped():
    folder = new_folder()
    heart = Heart(take(folder), ttl_s=0.05)
    heart.start()
    wait_until(lambda: heartbeat(folder, 1)["counter"] >= 3)
    heart.stop()
    last = heartbeat(folder, 1)
    assert (heart.lost, heart.is_alive()) == (None, False)
    assert heartbeat(folder, 1) == last


def test_a_heart_notices_a_take_over_and_beats_no_more():
    folder = new_folder()
    heart = Heart(take(folder), ttl_s=0.05)
    heart.start()
    folder.create_json("_batchinfer/lease/000002.0123.claim", {})
    wait_until(lambda: heart.lost is not None)
    heart.stop()
    assert isinstance(heart.lost, LeaseLostError)


class DyingStore(MemoryStore):
    dead = False

    def put(self, path, data):
        if self.dead:
            raise TransientStorageError("503 for ever")
        super().put(path, data)


def test_a_heart_that_cannot_beat_says_why():
    store = DyingStore(Retry(0.0))
    heart = Heart(take(new_folder(store)), ttl_s=0.05)
    heart.start()
    store.dead = True
    wait_until(lambda: heart.lost is not None)
    heart.stop()
    assert str(heart.lost) == "503 for ever"


def test_claims_say_who_made_them():
    folder = new_folder()
    take(folder)
    (name,) = [name for name in folder.list() if name.endswith(".claim")]
    assert json.loads(folder.store.read(folder.at(name)))["pid"] == os.getpid()
