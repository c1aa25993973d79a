"""One driver per output: claims by epoch and a heartbeat, without comparing any clocks.

The lease saves work and is not needed for correctness: two drivers of one run create the same
objects under the same names, and the second create is refused.

    lease/<epoch>.<nonce>.claim   made once per take-over, never deleted
    lease/<epoch>.hb              a counter that the holder moves, or "released"
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
import time
import uuid
from dataclasses import dataclass
from typing import Callable, Optional

from batchinfer.errors import BatchinferError, LeaseLostError, ObjectNotFoundError, StoppedError
from batchinfer.run_folder import STATE, RunFolder

CLAIM = re.compile(r".*/(\d{6})\.([0-9a-f]+)\.claim")
BEATS_PER_TTL = 5
ROUNDS = 6  # of a race between drivers that start in the same instant


@dataclass(frozen=True)
class Lease:
    """The right to hand out shards of one output, as epoch number `epoch`."""

    folder: RunFolder
    epoch: int
    nonce: str

    def check(self) -> None:
        """Make sure that nobody took over.

        Raises:
            LeaseLostError: a later epoch was claimed, or this one by two, or the claims are gone.
        """
        epochs = _claims(self.folder)
        last = max(epochs, default=0)
        if last < self.epoch:
            raise LeaseLostError(f"the claims in {self.folder.url}/{STATE}/lease were deleted")
        if epochs[last] != [self.nonce]:
            raise LeaseLostError(
                f"another driver took {self.folder.url} over (epoch {last}, this one was "
                f"{self.epoch}); nothing is lost, it goes on with the same shards"
            )

    def beat(self, counter: int) -> None:
        """Show that this driver lives."""
        _put_heartbeat(self, {"counter": counter, **_this_process()})

    def release(self) -> None:
        """Let the next driver start at once."""
        _put_heartbeat(self, {"released": True})


def acquire(
    folder: RunFolder,
    ttl_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Lease:
    """Claim the next epoch, once the last holder has released it or stopped beating.

    Args:
        ttl_s: seconds that a heartbeat may stand still, on this process's own clock.

    Raises:
        StoppedError: another driver is alive on this output.
    """
    for _ in range(ROUNDS):
        last = max(_claims(folder), default=0)
        if last:
            _wait_until_gone(folder, last, ttl_s, sleep, clock)
        lease = Lease(folder, last + 1, uuid.uuid4().hex)
        folder.create_json(f"{STATE}/lease/{lease.epoch:06d}.{lease.nonce}.claim", _this_process())
        claims = _claims(folder)
        if max(claims) == lease.epoch and claims[lease.epoch] == [lease.nonce]:
            lease.beat(0)
            return lease
        lease.release()  # a tie: nobody holds this epoch, and nobody has to wait for it
        sleep(random.uniform(0, ttl_s / BEATS_PER_TTL))
    raise StoppedError(f"several drivers started on {folder.url} at once; run the command again")


class Heart(threading.Thread):
    """Beats and checks the lease in the background; the driver asks `lost` between its steps."""

    def __init__(self, lease: Lease, ttl_s: float) -> None:
        super().__init__(name="lease-heartbeat", daemon=True)
        self.lost: Optional[BatchinferError] = None
        self._lease = lease
        self._pause_s = ttl_s / BEATS_PER_TTL
        self._ended = threading.Event()

    def run(self) -> None:
        counter = 0
        while not self._ended.wait(self._pause_s):
            counter += 1
            try:
                self._lease.check()
                self._lease.beat(counter)
            except BatchinferError as error:
                self.lost = error
                return

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _wait_until_gone(
    folder: RunFolder,
    epoch: int,
    ttl_s: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> None:
    seen = _heartbeat(folder, epoch)
    until = clock() + ttl_s
    while seen is None or not (seen.get("released") or _is_dead(seen)):
        if clock() >= until:
            return
        sleep(ttl_s / BEATS_PER_TTL / 2)
        now = _heartbeat(folder, epoch)
        if now != seen and not (now or {}).get("released"):
            raise StoppedError(
                f"another driver is at work on {folder.url}: process {(now or {}).get('pid')} on "
                f"{(now or {}).get('host')}, epoch {epoch}. Let it finish, or end it and run this "
                "command again."
            )
        seen = now


def _claims(folder: RunFolder) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for info in folder.store.list(folder.at(f"{STATE}/lease")):
        match = CLAIM.match(info.path)
        if match:
            found.setdefault(int(match.group(1)), []).append(match.group(2))
    return found


def _heartbeat(folder: RunFolder, epoch: int) -> Optional[dict[str, object]]:
    try:
        return dict(json.loads(folder.store.read(folder.at(f"{STATE}/lease/{epoch:06d}.hb"))))
    except ObjectNotFoundError:
        return None


def _put_heartbeat(lease: Lease, value: dict[str, object]) -> None:
    lease.folder.put_json(f"{STATE}/lease/{lease.epoch:06d}.hb", value)


def _this_process() -> dict[str, object]:
    """Who holds the lease, in a form that lets the same machine tell that the process died."""
    pid = os.getpid()
    return {
        "host": os.uname().nodename,
        "pid": pid,
        "machine": _machine(),
        "started": _start_time(pid),
    }


def _is_dead(holder: dict[str, object]) -> bool:
    """Whether the holder ran on this very machine and its process is gone: no need to wait."""
    machine, pid = _machine(), holder.get("pid")
    if machine is None or holder.get("machine") != machine or not isinstance(pid, int):
        return False
    return _start_time(pid) != holder.get("started")


def _machine() -> Optional[str]:
    """This boot of this machine and its process id namespace; None where /proc cannot say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> Optional[str]:
    """The process's start in clock ticks since boot; None when it does not exist or is a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
