"""The processes that this one has started, however deep: their CPU-seconds and their memory.

The runner becomes a subreaper: a process whose parent has died becomes the runner's child, not
init's, so that nothing escapes the count. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from dataclasses import dataclass
from typing import Optional

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
LINGER_S = 10.0  # how long what a command leaves behind may take to end by itself
MB = 1_000_000


def become_subreaper() -> None:
    """Adopt the orphans of this process's tree from now on."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) was refused")


@dataclass(frozen=True)
class Process:
    """A process as /proc shows it.

    Attributes:
        started: in ticks since boot; with the pid it names the process for good.
        own_s, waited_s: CPU-seconds of its own, and of the children that it has waited for.
    """

    pid: int
    parent: int
    started: int
    own_s: float
    waited_s: float


def read_process(pid: int) -> Optional[Process]:
    """A process as it is now; None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = [int(field) for field in file.read().rpartition(b")")[2].split()[1:20]]
    except OSError:
        return None
    user, system, waited_user, waited_system = (ticks / TICKS_PER_S for ticks in fields[10:14])
    return Process(pid, fields[0], fields[18], user + system, waited_user + waited_system)


def descendants(root: int) -> list[Process]:
    """Every process below `root`, without it."""
    found = [read_process(int(name)) for name in os.listdir("/proc") if name.isdigit()]
    children: dict[int, list[Process]] = {}
    for process in found:
        if process is not None:
            children.setdefault(process.parent, []).append(process)
    tree, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        tree += below
        queue += [process.pid for process in below]
    return tree


def memory_bytes(pid: int) -> int:
    """PSS (a shared page counts once over all its processes), else RSS; 0 when it is gone."""
    for name, field in (("smaps_rollup", b"Pss:"), ("status", b"VmRSS:")):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                for line in file:
                    if line.startswith(field):
                        return int(line.split()[1]) * 1024
        except OSError:
            continue
    return 0


class ProcessTree:
    """What runs below this process since the object was made; the runner starts one at a time.

    A dead process is in the account of the one that waited for it. Ray's raylet waits for none of
    its workers (SIGCHLD is ignored): what vanishes without being waited for is added as it was
    last seen.
    """

    def __init__(self) -> None:
        self._before_s = self._reaped_s = _reaped_cpu_s()
        self._seen: dict[tuple[int, int], Process] = {}
        self._lost_s = 0.0
        self._pending_s = 0.0  # vanished, and not yet in the account of a parent
        self._cpu_s = 0.0

    def cpu_s(self) -> float:
        """CPU-seconds of the tree so far, of the dead too; never falls."""
        reaped_s = _reaped_cpu_s()
        live = {(one.pid, one.started): one for one in descendants(os.getpid())}
        seen = self._seen
        vanished_s = sum(seen[key].own_s + seen[key].waited_s for key in set(seen) - set(live))
        waited_s = reaped_s - self._reaped_s
        waited_s += sum(live[key].waited_s - seen[key].waited_s for key in set(seen) & set(live))
        # A parent that was read before it waited for its child has it in the next reading.
        self._lost_s += max(0.0, self._pending_s - max(0.0, waited_s - vanished_s))
        self._pending_s = max(0.0, vanished_s - waited_s)
        self._seen, self._reaped_s = live, reaped_s
        live_s = sum(one.own_s + one.waited_s for one in live.values())
        now_s = reaped_s - self._before_s + live_s + self._lost_s + self._pending_s
        self._cpu_s = max(self._cpu_s, now_s)
        return self._cpu_s

    def memory_mb(self) -> float:
        return sum(memory_bytes(process.pid) for process in descendants(os.getpid())) / MB

    def reap(self) -> dict[int, int]:
        """Take leave of the children that have ended: status by pid."""
        ended = {}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            ended[pid] = status

    def end(self, linger_s: float = LINGER_S) -> int:
        """Wait for what is left, then kill it by its pid; returns how many had to be killed."""
        deadline, killed = time.monotonic() + linger_s, set()
        while True:
            self.reap()
            left = descendants(os.getpid())
            if not left:
                return len(killed)
            if time.monotonic() > deadline:
                for process in left:
                    killed.add(process.pid)
                    try:
                        os.kill(process.pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
            time.sleep(0.02)


def _reaped_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
