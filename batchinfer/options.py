"""What a scoring run is asked to do: frozen options that check themselves when they are made.

One record per subject: `ScoreOptions` says what is scored and changes the result, with
`OutputOptions` for what is written of the predictions; `ClusterOptions` says where it runs,
`FaultOptions` how long trouble is borne.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional

from batchinfer.errors import InputError

RELATIVE = (
    "an absolute path or a URL: in a Ray job a relative one lies in Ray's copy of the working "
    "folder, which goes when the cluster does"
)
DEVICES = ("auto", "cpu", "gpu")
ON_BAD_ROW = ("reject", "fail")
COMPRESSIONS = ("snappy", "zstd", "none")


@dataclass(frozen=True)
class OutputOptions:
    """What is written of the model's outputs, and how it is packed.

    Attributes:
        columns: outputs to write, in this order; empty is all but those of `top_k` and `argmax`.
        top_k: output -> how many of its best values are written, with their indices.
        argmax: outputs of which the index of the best value is written.
        labels: output of `top_k` or `argmax` -> file with one label per line.
        compression: of the Parquet pages. It changes bytes and never a row, so a run may go on
            with another one.
    """

    columns: tuple[str, ...] = ()
    top_k: Mapping[str, int] = field(default_factory=dict)
    argmax: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    compression: str = COMPRESSIONS[0]

    def __post_init__(self) -> None:
        for name, given in (("output_columns", self.columns), ("argmax", self.argmax)):
            distinct = len(set(given)) == len(given)
            _require(name, ",".join(given), "each output once", distinct)
        for output, k in self.top_k.items():
            _require(f"top_k {output}", k, "1 or more", k >= 1)
        known = self.compression in COMPRESSIONS
        _require("compression", self.compression, f"one of {', '.join(COMPRESSIONS)}", known)

    def result_options(self) -> dict[str, Any]:
        """Those that were given and change what is written; older runs know none of them."""
        given = {
            "output_columns": list(self.columns),
            "top_k": [[name, k] for name, k in self.top_k.items()],  # the order is that of columns
            "argmax": list(self.argmax),
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True)
class HookOptions:
    """Functions of the user's, `module:function`, for what a graph cannot do.

    Attributes:
        preprocess: from columns to the model's inputs.
        preprocess_columns: that it is given, in this order; empty is those of the inputs.
        postprocess: from the model's outputs to what is written.
        postprocess_outputs: that it is given; empty is all of them.
    """

    preprocess: Optional[str] = None
    preprocess_columns: tuple[str, ...] = ()
    postprocess: Optional[str] = None
    postprocess_outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("preprocess_columns", "postprocess_outputs"):
            given, hook = getattr(self, name), name.partition("_")[0]
            _require(name, ",".join(given), "each once", len(set(given)) == len(given))
            _require(
                name, ",".join(given), f"{hook} with it", bool(getattr(self, hook)) or not given
            )

    def result_options(self) -> dict[str, Any]:
        """Those that were given; all of them change what is written."""
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in given.items() if v}


@dataclass(frozen=True)
class ScoreOptions:
    """What to score, with what, to where.

    Attributes:
        bundle: folder of the converted model; a local one must be there on every node.
        inputs: files, folders or globs, in the order in which their rows come out.
        output: folder of the predictions.
        columns: input name -> column name, where they differ.
        keep: columns copied from input to output, in this order.
        batch_rows: rows per session run; None is the model's own, else measured. Never changes
            which rows are written where; floats may differ in their last bits.
        shard_bytes: bytes of input columns per output object; None is chosen from the input.
        storage_options: of the fsspec file system. Secrets belong into the environment.
        allow_unproven: score a bundle that has no passed parity report.
        xla: compile the model with XLA. Floats differ in their last bits, and it is part of the
            result, so that one output is not of two kinds.
        profile: write where the time of each shard went, step by step.
        outputs: what is written of the predictions.
        hooks: functions before and behind the model.
    """

    bundle: str
    inputs: tuple[str, ...]
    output: str
    columns: Mapping[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    batch_rows: Optional[int] = None
    shard_bytes: Optional[int] = None
    storage_options: Mapping[str, Any] = field(default_factory=dict)
    allow_unproven: bool = False
    xla: bool = False
    profile: bool = False
    outputs: OutputOptions = field(default_factory=OutputOptions)
    hooks: HookOptions = field(default_factory=HookOptions)

    def __post_init__(self) -> None:
        _require("bundle", self.bundle, "a folder", bool(self.bundle))
        _require("input", self.inputs, "at least one file, folder or glob", bool(self.inputs))
        _require("output", self.output, "a folder", bool(self.output))
        distinct = len(set(self.keep)) == len(self.keep)
        _require("keep", ",".join(self.keep), "each column once", distinct)
        one_way = not (self.columns and self.hooks.preprocess_columns)
        _require("map", self.columns, "none beside preprocess_columns", one_way)
        _positive("batch_rows", self.batch_rows)
        _positive("shard_bytes", self.shard_bytes)
        mapping = isinstance(self.storage_options, Mapping)
        _require("storage_options", self.storage_options, "name: value pairs", mapping)
        _require("output", self.output, RELATIVE, not (_in_ray_job() and _is_relative(self.output)))

    def result_options(self) -> dict[str, Any]:
        """Those options that change what is written; part of the run's fingerprint."""
        return {
            "columns": dict(sorted(self.columns.items())),
            "keep": list(self.keep),
            "shard_bytes": self.shard_bytes,
            **self.outputs.result_options(),
            **self.hooks.result_options(),
            **({"xla": True} if self.xla else {}),
        }


@dataclass(frozen=True)
class ClusterOptions:
    """Where the actors run.

    Attributes:
        address: of a running Ray cluster; None starts Ray on this machine, unless the
            process is a Ray job already (RAY_ADDRESS is set).
        device: gpu, cpu, or auto (gpu when the cluster has any).
        actors: how many; None is as many as the cluster has room for, nodes that join included.
        num_gpus: GPUs of a Ray that is started here; None is what the machine has. More than
            that gives logical GPUs, to try a cluster run on a machine without.
        gpus_per_actor: 1, or a fraction when several actors share a GPU.
        cpus_per_actor: cores that an actor reserves and computes with on CPU; default 2.
    """

    address: Optional[str] = None
    device: str = "auto"
    actors: Optional[int] = None
    num_gpus: Optional[int] = None
    gpus_per_actor: float = 1.0
    cpus_per_actor: int = 2

    def __post_init__(self) -> None:
        _require("device", self.device, f"one of {', '.join(DEVICES)}", self.device in DEVICES)
        _positive("actors", self.actors)
        _positive("cpus_per_actor", self.cpus_per_actor)
        fits = 0 < self.gpus_per_actor <= 1
        _require("gpus_per_actor", self.gpus_per_actor, "more than 0 and at most 1", fits)
        at_least_none = self.num_gpus is None or self.num_gpus >= 0
        _require("num_gpus", self.num_gpus, "0 or more", at_least_none)


@dataclass(frozen=True)
class FaultOptions:
    """How long trouble is borne before something is given up; nothing here changes what is written.

    Attributes:
        on_bad_row: what becomes of a row that cannot be fed, or that the model's ops refuse:
            `reject` (set apart, with its reason), or `fail` (the run ends).
        max_bad_rows, max_bad_fraction: rejected rows, of the whole input, above which the run ends.
        max_failed_shards: shards given up above which the run ends.
        second_try: at the end of a run, idle actors try the slowest shards as well.
        max_attempts: tries of one shard before it is quarantined; a shard is only blamed for
            the death of an actor that scored nothing else. Three, as Spark's task retries.
        stall_timeout_s: seconds without any progress after which an actor is killed.
        start_timeout_s: seconds that the first actor may take to start; covers an autoscaler
            that has to bring a node (5 to 10 minutes on the usual clouds).
        retry_budget_s: seconds that one storage operation is tried.
        lease_ttl_s: seconds without a heartbeat after which a driver counts as gone.
    """

    on_bad_row: str = ON_BAD_ROW[0]
    max_bad_rows: Optional[int] = None
    max_bad_fraction: Optional[float] = None
    max_failed_shards: Optional[int] = None
    second_try: bool = True
    max_attempts: int = 3
    stall_timeout_s: float = 600.0
    start_timeout_s: float = 900.0
    retry_budget_s: float = 120.0
    lease_ttl_s: float = 15.0

    def __post_init__(self) -> None:
        for name in ("max_attempts", "stall_timeout_s", "start_timeout_s", "lease_ttl_s"):
            _positive(name, getattr(self, name))
        for name in ("retry_budget_s", "max_bad_rows", "max_failed_shards"):
            found = getattr(self, name)
            _require(name, found, "0 or more", found is None or found >= 0)
        share = self.max_bad_fraction
        _require("max_bad_fraction", share, "0 to 1", share is None or 0 <= share <= 1)
        known = self.on_bad_row in ON_BAD_ROW
        _require("on_bad_row", self.on_bad_row, f"one of {', '.join(ON_BAD_ROW)}", known)

    def most_bad_rows(self, num_rows: int) -> Optional[int]:
        """Rows that may be rejected of so many; None is any number."""
        share = self.max_bad_fraction
        limits = [self.max_bad_rows, None if share is None else int(share * num_rows)]
        return min((limit for limit in limits if limit is not None), default=None)


def _in_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _is_relative(url: str) -> bool:
    return "://" not in url and not os.path.isabs(os.path.expanduser(url))


def _positive(name: str, value: Optional[float]) -> None:
    _require(name, value, "more than 0", value is None or 0 < value < float("inf"))


def _require(name: str, found: Any, expected: str, holds: bool) -> None:
    if not holds:
        raise InputError(f"{name}: expected {expected}; found {found!r}")
