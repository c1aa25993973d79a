"""Score Parquet with a converted bundle on Ray; the same command again continues.

python jobs/score.py --bundle BUNDLE --input DATA --output PREDICTIONS --map image=pixels --keep id
ray job submit --working-dir . -- python jobs/score.py --config score.yaml
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # jobs/ itself must not be importable: jobs/inspect.py is not inspect
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import logging
from typing import Any, Dict, Optional

from batchinfer.errors import InputError
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from jobs.command import Parser, pairs, run, stop_on_sigterm, word, words

MIB = 1 << 20


def read() -> argparse.Namespace:
    defaults, where = FaultOptions(), ClusterOptions()
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--bundle", required=True, metavar="URL", help="folder of the converted model")
    add(
        "--input",
        required=True,
        metavar="URL,...",
        help="Parquet to score: folders, files, globs; rows come out in this order",
    )
    add(
        "--output", required=True, metavar="URL", help="folder of the predictions, in its own place"
    )
    add("--map", metavar="INPUT=COLUMN,...", help="the column for an input, where names differ")
    add("--keep", metavar="COLUMN,...", help="columns to copy to the output, such as keys")
    add(
        "--batch-rows",
        type=int,
        metavar="ROWS",
        help="rows per run of the model; never changes which rows come out where "
        "(default: the model's own, or 256)",
    )
    add(
        "--shard-mib",
        type=float,
        metavar="MIB",
        help="input per output object (default: 1/64 of the input, at least 1, at most 128)",
    )
    add(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default=where.device,
        help="auto is gpu where the cluster has one",
    )
    add("--actors", type=int, help="how many (default: as many as the cluster has room for)")
    add(
        "--gpus-per-actor",
        type=float,
        default=where.gpus_per_actor,
        help="a fraction lets actors share a GPU",
    )
    add(
        "--cpus-per-actor",
        type=int,
        default=min(where.cpus_per_actor, os.cpu_count() or 1),
        help="cores of an actor that computes on CPU",
    )
    add(
        "--num-gpus",
        type=int,
        metavar="N",
        help="start Ray here with N logical GPUs (default: what the machine has)",
    )
    add(
        "--address",
        help="join this Ray cluster (default: the one this job runs on, else start one)",
    )
    add("--max-attempts", type=int, default=defaults.max_attempts, help="tries of a shard")
    add(
        "--stall-timeout-s",
        type=float,
        default=defaults.stall_timeout_s,
        help="seconds without progress until an actor is replaced",
    )
    add(
        "--start-timeout-s",
        type=float,
        default=defaults.start_timeout_s,
        help="seconds until the first actor must have started",
    )
    add(
        "--retry-budget-s",
        type=float,
        default=defaults.retry_budget_s,
        help="seconds that one storage operation is tried",
    )
    add(
        "--lease-ttl-s",
        type=float,
        default=defaults.lease_ttl_s,
        help="seconds of silence after which another driver counts as gone",
    )
    add(
        "--allow-unproven",
        action="store_true",
        default=False,
        help="score a bundle that has no passed parity report",
    )
    parser.set_defaults(storage_options={})  # only in --config: it may hold an endpoint
    return parser.read()


def _bytes(mebibytes: Optional[float]) -> Optional[int]:
    if mebibytes is None:
        return None
    if not 0 < mebibytes < float("inf"):
        raise InputError(f"--shard-mib: expected more than 0; found {mebibytes}")
    return max(1, int(mebibytes * MIB))


def score(flags: argparse.Namespace, backend: Any = None) -> Dict[str, Any]:
    """Score as the flags say, on Ray or on another `driver.Backend`."""
    options = ScoreOptions(
        bundle=word(flags.bundle, "--bundle"),
        inputs=tuple(words(flags.input)),
        output=word(flags.output, "--output"),
        columns=pairs(flags.map, "--map"),
        keep=tuple(words(flags.keep)),
        batch_rows=flags.batch_rows,
        shard_bytes=_bytes(flags.shard_mib),
        storage_options=flags.storage_options,
        allow_unproven=flags.allow_unproven,
    )
    cluster = ClusterOptions(
        address=flags.address,
        device=flags.device,
        actors=flags.actors,
        num_gpus=flags.num_gpus,
        gpus_per_actor=flags.gpus_per_actor,
        cpus_per_actor=flags.cpus_per_actor,
    )
    faults = FaultOptions(
        max_attempts=flags.max_attempts,
        stall_timeout_s=flags.stall_timeout_s,
        start_timeout_s=flags.start_timeout_s,
        retry_budget_s=flags.retry_budget_s,
        lease_ttl_s=flags.lease_ttl_s,
    )
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("batchinfer").setLevel(logging.INFO)
    from batchinfer.cluster import ray_backend  # ray only once the flags are in order
    from batchinfer.driver import run as run_scoring

    stop_on_sigterm()
    return run_scoring(options, cluster, faults, backend or ray_backend())


if __name__ == "__main__":
    run(read, score)
