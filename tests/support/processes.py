"""The real commands as processes of their own, a Ray head among them; each ended by its id."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DEADLINE_S = 120.0


@contextlib.contextmanager
def short_folder():
    """A folder with a short path: Ray's socket names have to fit into 107 bytes."""
    folder = tempfile.mkdtemp(prefix="bi-", dir="/tmp")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def start_score(*flags, **environment):
    """`python jobs/score.py FLAGS` from the project's root; the caller waits for it."""
    return subprocess.Popen(
        [sys.executable, "jobs/score.py", *map(str, flags)],
        cwd=str(ROOT),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


def finish(process):
    """(exit status, the JSON line of stdout or None, stderr) of a started command."""
    out, err = process.communicate(timeout=DEADLINE_S)
    lines = out.splitlines()
    assert len(lines) <= 1, f"stdout holds more than one line: {out}"
    return process.returncode, json.loads(lines[0]) if lines else None, err


def score(*flags, **environment):
    return finish(start_score(*flags, **environment))


def wait_until(condition, what, deadline_s=DEADLINE_S):
    """The first true value of `condition()`, asked for again and again."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {deadline_s:.0f} s")


def start_until(condition, what, *flags):
    """Start the scoring command and wait for a condition while it runs; gives the process.

    A command that ends with 75 meanwhile (a Ray that dies on a busy machine) is run again, as
    its message says.
    """
    for _ in range(3):
        process = start_score(*flags)
        wait_until(lambda: condition() or process.poll() is not None, what)  # noqa: B023
        if condition():
            return process
        status, _, err = finish(process)
        assert status == 75, f"exit status {status} before {what}: {err}"
    raise AssertionError(f"{what} did not happen: the command stopped three times; last: {err}")


def actors_of(driver_pid):
    """Process ids of the scoring actors below a driver."""
    found = []
    for entry in os.listdir("/proc"):
        actor = entry.isdigit() and _command(entry).startswith("ray::ScoringActor")
        if actor and driver_pid in _ancestors(int(entry)):
            found.append(int(entry))
    return found


def _command(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _ancestors(pid):
    found = []
    while pid > 1:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def ray_head(num_gpus=2):
    """A Ray head of its own, loopback ports and folder; gives (GCS, jobs) addresses."""
    with short_folder() as folder:
        gcs, dashboard = free_port(), free_port()
        environment = {
            **os.environ,
            # The head's `python` is what a submitted job runs with.
            "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"],
            "RAY_TMPDIR": folder,
        }
        log = Path(folder, "head.log")
        head = subprocess.Popen(
            [
                os.path.join(os.path.dirname(sys.executable), "ray"), "start", "--head", "--block",
                "--node-ip-address", "127.0.0.1", "--port", str(gcs),
                "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
                "--dashboard-agent-listen-port", str(free_port()),
                "--dashboard-agent-grpc-port", str(free_port()),
                "--ray-client-server-port", str(free_port()),
                "--num-cpus", "4", "--num-gpus", str(num_gpus),
                "--object-store-memory", str(100 << 20), "--temp-dir", folder,
                "--disable-usage-stats",
            ],
            env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            wait_until(
                lambda: _answers(dashboard) or head.poll() is not None, "the Ray head's start"
            )
            assert head.poll() is None, log.read_text()
            yield f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}"
        finally:
            _end_group(head)


def _answers(port):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _end_group(process):
    """End a process and whatever it started in its own process group."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
