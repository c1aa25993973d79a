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
from typing import Any, Callable, Dict, Optional, Sequence

from batchinfer.errors import InputError
from batchinfer.options import (
    COMPRESSIONS,
    ON_BAD_ROW,
    ClusterOptions,
    FaultOptions,
    HookOptions,
    OutputOptions,
    ScoreOptions,
)
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
    _add_outputs(add)
    _add_hooks(add)
    add(
        "--batch-rows",
        type=int,
        metavar="ROWS",
        help="rows per run of the model; never changes which rows come out where "
        "(default: the model's own, else measured on each type of device)",
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
    add(
        "--on-bad-row",
        choices=ON_BAD_ROW,
        default=defaults.on_bad_row,
        help="a row that cannot be fed or that the model refuses: set it apart with its reason, or "
        "end the run",
    )
    add(
        "--max-bad-rows",
        type=int,
        metavar="ROWS",
        help="end the run when more rows were rejected (default: any number)",
    )
    add(
        "--max-bad-fraction",
        type=float,
        metavar="SHARE",
        help="the same as a share of all rows, 0 to 1",
    )
    add(
        "--max-failed-shards",
        type=int,
        metavar="SHARDS",
        help="end the run when more shards were given up (default: any number)",
    )
    add(
        "--no-second-try",
        action="store_true",
        default=False,
        help="leave the slowest shards at the end of a run to the actors that have them",
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
    add(
        "--xla",
        action="store_true",
        default=False,
        help="compile the model with XLA: try it on models of many small ops (prove it first with "
        "verify.py --xla)",
    )
    add(
        "--profile",
        action="store_true",
        default=False,
        help="write OUTPUT/_batchinfer/profile.json: each actor's steps, for chrome://tracing",
    )
    parser.set_defaults(storage_options={})  # only in --config: it may hold an endpoint
    return parser.read()


def _add_outputs(add: Callable[..., Any]) -> None:
    add(
        "--output-columns",
        metavar="OUTPUT,...",
        help="outputs to write, in this order; others are not computed (default: all but those of "
        "--top-k and --argmax)",
    )
    add(
        "--top-k",
        metavar="OUTPUT=K,...",
        help="write the K best of an output: OUTPUT_topK_index, OUTPUT_topK_value",
    )
    add("--argmax", metavar="OUTPUT,...", help="write the index of the best: OUTPUT_argmax")
    add(
        "--labels",
        metavar="[OUTPUT=]FILE,...",
        help="one label per line: writes OUTPUT_topK_label and OUTPUT_label as well",
    )
    add(
        "--compression",
        choices=COMPRESSIONS,
        default=COMPRESSIONS[0],
        help="of the output; may differ between runs that continue each other",
    )


def _add_hooks(add: Callable[..., Any]) -> None:
    add(
        "--preprocess",
        metavar="MODULE:FUNCTION",
        help="your function from a RecordBatch to the model's inputs",
    )
    add(
        "--preprocess-columns",
        metavar="COLUMN,...",
        help="columns that it is given (default: those of the inputs)",
    )
    add(
        "--postprocess",
        metavar="MODULE:FUNCTION",
        help="your function from the model's outputs to what is written",
    )
    add(
        "--postprocess-outputs",
        metavar="OUTPUT,...",
        help="outputs that it is given (default: all)",
    )


def _hooks(flags: argparse.Namespace) -> HookOptions:
    return HookOptions(
        preprocess=flags.preprocess,
        preprocess_columns=tuple(words(flags.preprocess_columns)),
        postprocess=flags.postprocess,
        postprocess_outputs=tuple(words(flags.postprocess_outputs)),
    )


def _outputs(flags: argparse.Namespace) -> OutputOptions:
    top_k = {name: _count(name, k) for name, k in pairs(flags.top_k, "--top-k").items()}
    best = tuple(words(flags.argmax))
    return OutputOptions(
        columns=tuple(words(flags.output_columns)),
        top_k=top_k,
        argmax=best,
        labels=_labels(flags.labels, [*top_k, *best]),
        compression=flags.compression,
    )


def _count(output: str, k: str) -> int:
    if not k.isdecimal():
        raise InputError(f"--top-k {output}: expected a number; found {k!r}")
    return int(k)


def _labels(given: Any, ranked: Sequence[str]) -> Dict[str, str]:
    """Output -> its labels' file; what does not begin with such an output is one file for all.

    Raises:
        InputError: a file without anything to be labelled.
    """
    if not isinstance(given, str) or given.partition("=")[0] in ranked:
        return pairs(given, "--labels")
    if not ranked:
        raise InputError(f"--labels {given}: expected --top-k or --argmax with it, found none")
    return dict.fromkeys(ranked, given)


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
        xla=flags.xla,
        profile=flags.profile,
        outputs=_outputs(flags),
        hooks=_hooks(flags),
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
        on_bad_row=flags.on_bad_row,
        max_bad_rows=flags.max_bad_rows,
        max_bad_fraction=flags.max_bad_fraction,
        max_failed_shards=flags.max_failed_shards,
        second_try=not flags.no_second_try,
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
    from batchinfer.driver import later
    from batchinfer.driver import run as run_scoring

    return run_scoring(options, cluster, faults, backend or later(_ray))


def _ray() -> Any:
    """Import Ray: half a second that a refused or a finished run does without."""
    from batchinfer.cluster import ray_backend

    stop_on_sigterm()  # Ray's handler has taken its place
    return ray_backend()


if __name__ == "__main__":
    run(read, score)
