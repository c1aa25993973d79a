"""Nothing that a command starts escapes the count: CPU-seconds, memory, orphans."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from benchmarks.measure import Watched

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BURN = "import time, os\ndef burn(s):\n    while time.process_time() < s: pass\n"


def watched(tmp_path, script, **more):
    """What `watch` says of a Python script; in a process of its own, which becomes a subreaper."""
    code = (
        "import json, sys; from benchmarks.measure import watch\n"
        "from benchmarks.process_tree import become_subreaper; become_subreaper()\n"
        "log = sys.argv[2]\n"
        "run = watch([sys.executable, '-c', sys.argv[1]], {}, log, log + '.events', 60)\n"
        "print(json.dumps([run.cpu[-1][1], run.cpu_at(run.ended), run.peak_mb, run.stdout]))"
    )
    command = [sys.executable, "-c", code, BURN + script, str(tmp_path / "log")]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    return json.loads(subprocess.check_output(command, env=environment))


def test_a_grandchild_that_outlives_its_parent_is_counted(tmp_path):
    script = "burn(0.4)\nif os.fork() == 0: burn(0.5); os._exit(0)\n"  # a fork's clock starts at 0
    total_s, at_exit_s, _, _ = watched(tmp_path, script)
    assert 0.9 <= total_s < 1.5
    assert at_exit_s < 0.8  # the grandchild had hardly begun


def test_a_child_that_was_waited_for_is_counted_once(tmp_path):
    script = "pid = os.fork()\nif pid == 0: burn(0.5); os._exit(0)\nos.waitpid(pid, 0)\nburn(0.3)\n"
    assert 0.8 <= watched(tmp_path, script)[0] < 1.3


def test_a_child_that_nobody_waits_for_is_counted(tmp_path):
    """Ray's raylet ignores SIGCHLD: the kernel then drops the times of its workers."""
    script = (
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "if os.fork() == 0: burn(0.6); os._exit(0)\n"
        "time.sleep(0.9)\n"
        "if os.fork() == 0: burn(0.6); os._exit(0)\n"
        "time.sleep(0.9)\n"
    )
    assert 0.9 <= watched(tmp_path, script)[0] < 1.5  # up to a tenth of a second before each death


def test_memory_is_of_the_whole_tree_and_shared_pages_count_once(tmp_path):
    script = (
        "held = b'x' * 100_000_000\n"  # shared with the child, which takes 50 MB of its own
        "if os.fork() == 0: mine = b'y' * 50_000_000; time.sleep(0.8); os._exit(0)\n"
        "os.wait(); print('done')\n"
    )
    _, _, peak_mb, printed = watched(tmp_path, script)
    assert 150 <= peak_mb < 200
    assert printed == "done\n"


def test_a_command_that_fails_is_told_with_the_end_of_its_log(tmp_path):
    with pytest.raises(subprocess.CalledProcessError):
        watched(tmp_path, "raise SystemExit('no such model')")
    assert (tmp_path / "log").read_text() == "no such model\n"


def test_cpu_seconds_between_two_samples_lie_on_a_line():
    run = Watched(10.0, 14.0, "", cpu=[(11.0, 1.0), (13.0, 5.0), (14.0, 5.0)], peak_mb=0.0)
    assert [run.cpu_at(t) for t in (10.0, 10.5, 11.0, 12.0, 13.5, 99.0)] == [0, 0.5, 1, 3, 5, 5]
