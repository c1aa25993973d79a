#!/usr/bin/env python3
"""Seconds and CPU-seconds of planning, resuming and handing out many shards, and of a start.

    python benchmarks/plan_scale.py --files 100000
    python benchmarks/plan_scale.py --files 10000 --cases plan,command,driver

The input is made once, in build/bench/: tiny Parquet files of 10 rows, 100 to a folder, each
written for itself (own inode, own time of change); their contents are 64 seeded tables in turn.
So are two outputs of it, a shard per file, with 1,000 bytes in place of each part: what is measured
never opens them. One line of JSON per case, each a process of its own; `cpu_s` is its user and
system time, its children's included, `rss_mb` its peak (of the whole tree for `start`).

plan      `prepare` of a new output: list, read every footer, plan (a shard per file)
finished  `prepare` of an output that is done: list both, read plan and ledger, compare
half      the same with every second shard missing: what precedes the first shard handed out
command   `jobs/score.py` on the finished output, from fork to exit
driver    the dispatcher and Ray over 64 actors that sleep, 1,000 shards a minute for a minute
start     `jobs/score.py` on 10 files, from fork to the exit of a whole job; `actor_ready_s` of it,
          from the command's own start, until the first actor has restored the model
"""

from __future__ import annotations

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

import argparse
import gc
import io
import json
import resource
import shutil
import subprocess
import tempfile
import time
from typing import Any, Callable, Dict, List

from batchinfer.arrow import pq
from batchinfer.hold import _write_run
from batchinfer.lease import acquire
from batchinfer.ledger import Ledger, ShardRecord, success_record
from batchinfer.options import FaultOptions, ScoreOptions
from batchinfer.plan import Segment, Shard
from batchinfer.prepare import PreparedRun, prepare
from batchinfer.run_folder import SUCCESS, part_name
from tests.support import tiny

BENCH = os.path.join(ROOT, "build", "bench")
BUNDLE = os.path.join(BENCH, "bundle")
FOLDER_FILES = 100
CONTENTS = 64
PART_BYTES = 1000
SEGMENT_SHARDS = 83  # 1,000 shards a minute, a segment of the ledger every 5 s
SHARD_MIB = "0.00000096"  # a byte: no two files in one shard
ACTORS = 64
SHARDS_A_MINUTE = 1000


def make_input(count: int) -> str:
    """The folder of `count` tiny Parquet files."""
    folder = os.path.join(BENCH, f"plan-{count}")
    if os.path.exists(os.path.join(folder, "_DONE")):
        return folder
    contents = []
    for number in range(CONTENTS):
        sink = io.BytesIO()
        pq.write_table(tiny.table(number * 10, 10), sink)
        contents.append(sink.getvalue())
    for number in range(count):
        below = os.path.join(folder, f"{number // FOLDER_FILES:05d}")
        os.makedirs(below, exist_ok=True)
        with open(os.path.join(below, f"{number:07d}.parquet"), "wb") as file:
            file.write(contents[number % CONTENTS])
    open(os.path.join(folder, "_DONE"), "w").close()
    return folder


def ask(count: int, output: str) -> ScoreOptions:
    folder = os.path.join(BENCH, f"plan-{count}")
    return ScoreOptions(BUNDLE, (folder,), output, keep=("id",), shard_bytes=1)


def make_output(count: int, kind: str) -> str:
    """The output of a run over `make_input` that is `done` or `half` done."""
    output = os.path.join(BENCH, f"out-{kind}-{count}")
    if os.path.exists(output):
        return output
    prepared = prepare(ask(count, output), FaultOptions())
    lease = acquire(prepared.folder, 1.0)
    _write_run(prepared, lease)
    done = _fill(prepared, Ledger(prepared.folder, lease.epoch), 1 if kind == "done" else 2)
    if kind == "done":
        prepared.folder.create_json(SUCCESS, success_record(prepared.fingerprint, done))
    lease.release()
    return output


def _fill(prepared: PreparedRun, ledger: Ledger, step: int) -> Dict[int, ShardRecord]:
    seconds = {"read": 0.01, "score": 0.02, "encode": 0.01, "write": 0.02}
    done = {}
    for shard in prepared.plan.shards[::step]:
        name = part_name(shard, prepared.fingerprint)
        with open(prepared.folder.at(name), "wb") as file:
            file.write(b"x" * PART_BYTES)
        record = ShardRecord(shard.index, name, PART_BYTES, shard.num_rows, 0, seconds)
        done[shard.index] = record
        ledger.add(record)
        if len(done) % SEGMENT_SHARDS == 0:
            ledger.flush()
    ledger.flush()
    return done


def plan(count: int) -> Dict[str, Any]:
    output = tempfile.mkdtemp(dir=BENCH)
    try:
        return _prepared(count, output)
    finally:
        shutil.rmtree(output)


def finished(count: int) -> Dict[str, Any]:
    return _prepared(count, make_output(count, "done"))


def half(count: int) -> Dict[str, Any]:
    return _prepared(count, make_output(count, "half"))


def _prepared(count: int, output: str) -> Dict[str, Any]:
    prepared = prepare(ask(count, output), FaultOptions())
    return {"shards": len(prepared.plan.shards), "done": len(prepared.done)}


def command(count: int) -> Dict[str, Any]:
    report = json.loads(
        _score(f"plan-{count}", make_output(count, "done"), "--shard-mib", SHARD_MIB)
    )
    return {"status": report["status"], "done": report["shards_done_before"]}


def _score(data: str, output: str, *flags: str) -> str:
    command = [sys.executable, "jobs/score.py", "--bundle", BUNDLE, "--keep", "id"]
    command += ["--input", os.path.join(BENCH, data), "--output", output, *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode:
        raise SystemExit(done.stderr.decode())
    return done.stdout.decode()


def driver(count: int) -> Dict[str, Any]:
    """`count` is not used; the rate is what is measured."""
    import ray

    from batchinfer import local_ray
    from batchinfer.actors import RayEngine
    from batchinfer.dispatcher import Dispatcher

    class Sleeper:
        """Stands for 64 actors: the driver's calls are the same, 63 processes are not needed."""

        def start(self) -> Dict[str, Any]:
            return {"device": "none"}

        @ray.method(concurrency_group="score")
        def score(self, shard: Shard) -> Dict[str, Any]:
            time.sleep(SHARDS_IN_HAND * ACTORS * 60 / SHARDS_A_MINUTE)
            fields = {"shard": shard.index, "name": "part", "size_bytes": 1, "rows": 10}
            return {"record": {**fields, "rejected": 0}}

        @ray.method(concurrency_group="control")
        def progress(self) -> Dict[int, Any]:
            return {}

    class Engine(RayEngine):
        def __init__(self) -> None:
            groups = {"score": SHARDS_IN_HAND * ACTORS, "control": 8}
            self._one = ray.remote(concurrency_groups=groups)(Sleeper).options(num_cpus=0).remote()

        def spawn(self) -> Any:
            return self._one

        def kill(self, actor: Any) -> None:
            """The one actor ends with Ray."""

    from batchinfer.dispatcher import SHARDS_IN_HAND

    local_ray.start(ROOT, None)
    shards = [
        Shard(i, (Segment(f"memory://{i}", 1, "v", 0, 1, 0, 10),))
        for i in range(SHARDS_A_MINUTE + SHARDS_IN_HAND * ACTORS)
    ]
    records: List[ShardRecord] = []
    dispatcher = Dispatcher(Engine(), shards, FaultOptions(), records.append, ACTORS)
    marks: Dict[str, Any] = {}

    def between() -> None:
        if "cpu" not in marks and len(records) >= SHARDS_IN_HAND * ACTORS:
            marks.update(cpu=time.process_time(), wall=time.monotonic(), done=len(records))

    dispatcher.run(between)
    scored, seconds = len(records) - marks["done"], time.monotonic() - marks["wall"]
    spent = time.process_time() - marks["cpu"]
    return {
        "actors": ACTORS,
        "shards_a_minute": round(60 * scored / seconds),
        "ms_cpu_a_shard": round(1000 * spent / scored, 2),
        "share_of_a_core": round(spent / seconds, 4),
    }


def start(count: int) -> Dict[str, Any]:
    """`count` is not used."""
    data = os.path.join(BENCH, "start-10")
    if not os.path.exists(data):
        tiny.make_data(data, 10, 1000)
    output = tempfile.mkdtemp(dir=BENCH)
    try:
        report = json.loads(_score("start-10", output))
    finally:
        shutil.rmtree(output)
    before = report["seconds"] - report["seconds_scoring"]
    return {"rows": report["rows_out"], "actor_ready_s": round(before, 2)}


CASES: Dict[str, Callable[[int], Dict[str, Any]]] = {
    case.__name__: case for case in (plan, finished, half, command, driver, start)
}


def measured(name: str, count: int) -> Dict[str, Any]:
    """One case in this process, with what it took."""
    gc.collect()
    before, started = _cpu_s(), time.monotonic()
    found = CASES[name](count)
    spent = {"seconds": round(time.monotonic() - started, 2), "cpu_s": round(_cpu_s() - before, 2)}
    peak_kb = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"case": name, "files": count, **spent, "rss_mb": peak_kb >> 10, **found}


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10000)
    parser.add_argument("--cases", default=",".join(CASES), help="default: %(default)s")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.cases, asked.files)), flush=True)
        os._exit(0)
    os.makedirs(BENCH, exist_ok=True)
    if not os.path.exists(BUNDLE):
        tiny.make_bundle(BUNDLE)
    make_input(asked.files)
    for kind in ("done", "half"):
        make_output(asked.files, kind)
    for name in asked.cases.split(","):
        again = [sys.executable, __file__, "--one", "--files", str(asked.files), "--cases", name]
        subprocess.run(again, check=True)


if __name__ == "__main__":
    main()
