"""Measure batchinfer beside its ceilings and its peers: make bench, or with flags

python -m benchmarks.bench --workloads tabular,image --systems raw,storage,batchinfer --rounds 5
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import sys
from typing import Optional, Sequence

from benchmarks import machine
from benchmarks.prepare import prepare
from benchmarks.process_tree import become_subreaper
from benchmarks.rounds import Results, measure
from benchmarks.sweep import tune
from benchmarks.systems.registry import ROOT, SYSTEMS, WITHOUT_MODEL
from benchmarks.table import results_table, targets_table
from benchmarks.workloads import WORKLOADS, Workload

FOLDER = os.path.join(ROOT, "build", "bench")
RESULTS = os.path.join(ROOT, "benchmarks", "RESULTS.md")
QUICK_SCALE, QUICK_ROUNDS = 0.05, 1


def read(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--workloads", default="tabular,device", help=f"of {','.join(WORKLOADS)}, or all")
    add("--systems", default="all", help=f"of {','.join(SYSTEMS)}")
    add("--rounds", type=int, default=5)
    add("--scale", type=float, default=1.0, help="times the rows of each workload")
    add("--seconds", type=float, help="in place of --scale: so long that raw takes this time")
    add("--quick", action="store_true", help="one round of a twentieth; nothing is appended")
    add("--no-append", action="store_true", help=f"leave {os.path.relpath(RESULTS, ROOT)} alone")
    add("--folder", default=FOLDER, help="data, bundles and logs")
    flags = parser.parse_args(argv)
    flags.workloads = _names(parser, flags.workloads, WORKLOADS)
    flags.systems = _names(parser, flags.systems, SYSTEMS)
    flags.folder = os.path.abspath(flags.folder)
    if flags.quick:
        flags.scale, flags.rounds, flags.no_append = QUICK_SCALE, QUICK_ROUNDS, True
    return flags


def _names(parser: argparse.ArgumentParser, text: str, known: Sequence[str]) -> list[str]:
    """Those named, in the order in which they are known: raw comes first, to compare with."""
    named = list(known) if text == "all" else text.split(",")
    unknown = [name for name in named if name not in known]
    if unknown:
        parser.error(f"expected some of {', '.join(known)}; found {', '.join(unknown)}")
    return [name for name in known if name in named]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def systems_for(
    workload: Workload, wanted: Sequence[str], optimizes: bool, folder: str
) -> list[str]:
    """Those that can run, and would not run the same twice; what needs pandas is said.

    Args:
        optimizes: whether convert.py can; else the two graphs are one.
    """
    left_out = set()
    if workload.device_rows_per_s:
        left_out.update(name for name in wanted if name not in WITHOUT_MODEL)
    if not optimizes:
        left_out.update(
            ["raw_optimized", *(["batchinfer_plain"] if "batchinfer" in wanted else [])]
        )
    if not os.path.isdir(os.path.join(folder, "packages")):
        needy = {name for name in wanted if SYSTEMS[name].needs_pandas}
        if needy:
            say(f"left out: {', '.join(sorted(needy))}; ./setup_env.sh bench brings pandas")
        left_out |= needy
    return [name for name in wanted if name not in left_out]


def run_workload(flags: argparse.Namespace, workload: Workload) -> tuple[Results, list[str]]:
    kinds = {SYSTEMS[name].bundle for name in flags.systems} | {"plain"}  # settings are tried on it
    prepared = prepare(flags.folder, workload, flags.scale, kinds)
    if flags.seconds:
        rate = workload.device_rows_per_s or tune(flags.folder, prepared, "raw", say).rows_per_s
        scale = flags.seconds * rate / workload.rows
        prepared = prepare(flags.folder, workload, math.ceil(scale) if scale > 1 else scale, kinds)
    systems = systems_for(workload, flags.systems, "optimized" in prepared.bundles, flags.folder)
    return measure(flags.folder, prepared, systems, flags.rounds, say), systems


def main(argv: Optional[Sequence[str]] = None) -> dict[str, Results]:
    flags = read(argv)
    command = "python -m benchmarks.bench " + " ".join(map(shlex.quote, argv or sys.argv[1:]))
    text = [machine.describe(command.strip(), os.getloadavg()[0])]
    become_subreaper()
    os.makedirs(flags.folder, exist_ok=True)
    results = {}
    for name in flags.workloads:
        results[name], systems = run_workload(flags, WORKLOADS[name])
        text.append(results_table(results[name], systems))
        print(text[-1], flush=True)
    text.append(targets_table(results))
    print(text[-1], flush=True)
    if not flags.no_append:
        with open(RESULTS, "a") as file:
            file.write("\n" + "\n".join(text))
        say(f"appended to {RESULTS}")
    return results


if __name__ == "__main__":
    main()
