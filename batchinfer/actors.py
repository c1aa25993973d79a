"""ScoringActor: one process, one device, one restored model; scores the shards it is given.

Its methods never raise: an exception that crosses Ray can kill the actor or reach the driver
as another type. They return small records, never predictions.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
import sys
import threading
import time
from dataclasses import asdict
from typing import Any, Sequence

import ray

from batchinfer import batch_tuning
from batchinfer.arrow import pa
from batchinfer.bundle import Bundle
from batchinfer.bundle_cache import local_bundle
from batchinfer.dispatcher import ActorLostError
from batchinfer.errors import (
    BadRowError,
    BatchinferError,
    InputError,
    StoppedError,
    StorageError,
    TransientStorageError,
    first_line,
)
from batchinfer.job import ScoringJob
from batchinfer.memory import keep_freed_memory
from batchinfer.pipeline import Lane
from batchinfer.plan import Shard
from batchinfer.poison import sound
from batchinfer.run_folder import RunFolder
from batchinfer.schema import Columns
from batchinfer.score_shard import score_shard
from batchinfer.scorer import Scorer
from batchinfer.shard_progress import Progress
from batchinfer.shard_reader import ShardReader
from batchinfer.signature import Signature
from batchinfer.storage import Store

LOG = logging.getLogger("batchinfer")
SHARDS_AT_ONCE = 2  # one computes, the next reads ahead or the last one is written
NODE_DIED = ("node has died", "node was terminated", "preempted")  # in Ray's messages, 2.7 to 2.60
SWITCH_S = 0.0002  # a device's thread that comes back waits no 5 ms for the reader's lock
GPU_CALLERS = 2  # session runs in flight, so that copies overlap with compute


class ScoringActor:
    """What `RayEngine` makes remote; `start` first, then `score` for each shard."""

    def __init__(self, job: ScoringJob) -> None:
        self._job = job
        self._progress: dict[int, Progress] = {}
        self._settling = threading.Lock()
        self._settled = job.batch_rows is not None
        self._stores: dict[str, Store] = {}

    def start(self) -> dict[str, Any]:
        """Restore the bundle.

        Returns:
            pid, node and device; or an `error`, and whether another actor would fail alike
            (`final`).
        """
        try:
            return {**self._start(), "pid": os.getpid(), "node": os.uname().nodename}
        except BaseException as error:
            return _failure(error)

    def _start(self) -> dict[str, Any]:
        job = self._job
        gpu = job.gpus > 0
        if not gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # newer Ray shows every GPU to a CPU actor
        bundle = Bundle.open(local_bundle(job.bundle, job.open_store))
        if bundle.digest != job.bundle_digest:
            raise InputError(
                f"bundle {job.bundle} on {os.uname().nodename} has digest {bundle.digest[:12]}; "
                f"the driver opened {job.bundle_digest[:12]}. All nodes must see the same bundle."
            )
        device = describe_device(gpu)
        on_gpu = device.startswith("gpu")
        keep_freed_memory()
        sys.setswitchinterval(SWITCH_S)
        self._lane = Lane(GPU_CALLERS if on_gpu else job.cpus)
        self._scorer = self.restore_scorer(bundle, on_gpu)
        signature = Signature.from_json(job.signature)
        kept = pa.ipc.read_schema(pa.py_buffer(job.kept))
        self._columns = Columns(signature, job.columns, kept, job.outputs, job.preprocess)
        for hook in self._columns.hooks:
            hook.check()
        store, path = job.open_store(job.output)
        store.exclusive = job.exclusive
        self._folder = RunFolder(store, path)
        self._device_type = device_type(on_gpu, self._lane.workers, job.gpus, job.xla)
        return {"device": device}

    def restore_scorer(self, bundle: Bundle, on_gpu: bool) -> Any:
        """What scores the batches; a subclass may give anything with the methods of a Scorer."""
        job = self._job
        return Scorer.restore(
            bundle,
            job.batch_rows,
            intra_op_threads=0 if on_gpu else 1,
            gpu_memory_fraction=job.gpus * 0.9 if on_gpu and job.gpus < 1 else 0.0,
            outputs=job.outputs.fetched,
            padding="batch" if job.xla else "halves" if on_gpu else "none",
            xla=job.xla,
        )

    @ray.method(concurrency_group="score")
    def score(self, shard: Shard) -> dict[str, Any]:
        """Score one shard and commit it.

        Returns:
            `record`, the fields of a ShardRecord, `batch_rows` as it is now, and `spans` where a
            profile is wanted; or an `error` with its `kind`: `shard` (this shard is at fault),
            `row` (one row is, and that ends the run), `storage` (the store is), `process` (this
            actor may be).
        """
        progress = self._progress[shard.index] = self._begin()
        try:
            self._settle_batch(shard)
            record = score_shard(
                shard,
                self._scorer,
                self._columns,
                self._folder,
                self._job.fingerprint,
                self._open_input,
                self._lane,
                progress,
                self._job.fail_on_bad_row,
            )
            found = {"record": asdict(record), "batch_rows": self._scorer.batch_rows}
            return {**found, "spans": progress.spans} if self._job.profile else found
        except BaseException as error:
            return _failure(error, progress.stage)
        finally:
            del self._progress[shard.index]

    @ray.method(concurrency_group="control")
    def progress(self) -> dict[int, tuple[str, int, int]]:
        """Stage, rows scored and steps done of each shard in hand; answers while it scores."""
        now = dict(self._progress)
        return {index: (p.stage, p.rows, p.steps) for index, p in now.items()}

    def _begin(self) -> Progress:
        taken = {progress.slot for progress in list(self._progress.values())}
        slot = next(number for number in itertools.count() if number not in taken)
        return Progress(spans=[] if self._job.profile else None, slot=slot)

    def _settle_batch(self, shard: Shard) -> None:
        """Choose the batch size with the first rows that come; what fails here fails in scoring."""
        with self._settling:
            scorer = self._scorer
            if self._settled or scorer.signature.fixed_batch_rows is not None:
                return

            def measured() -> Any:
                batches = iter(ShardReader(shard, self._columns, self._open_input))
                first = next((batch for batch in batches if batch.num_rows), None)
                sample = first and sound(scorer.score, getattr(scorer, "refused", ()), first)
                if sample is None:
                    return None
                most_rows, num_rows = self._job.most_shard_rows // 2, self._job.num_rows
                return batch_tuning.measure(scorer, sample, self._lane, most_rows, num_rows)

            try:
                rows = batch_tuning.settle(self._folder, self._device_type, measured)
            except TransientStorageError:
                raise
            except Exception as error:  # of this shard's rows: its own scoring reports it
                LOG.debug("no batch size from shard %d: %s", shard.index, error)
                return
            scorer.batch_rows = rows or scorer.batch_rows
            self._settled = rows is not None

    def _open_input(self, url: str) -> tuple[Store, str]:
        protocol, colons, rest = url.partition("://")
        store = self._stores.get(protocol if colons else "")
        if store is None:
            store, _ = self._job.open_store(url)
            self._stores[protocol if colons else ""] = store
        return store, rest if colons else url


class RayEngine:
    """The dispatcher's view of Ray: actors as handles, calls as references.

    Args:
        actor: the class of the actors; a benchmark's own restores another scorer.
    """

    def __init__(self, job: ScoringJob, actor: type[ScoringActor] = ScoringActor) -> None:
        self._job = job
        self._remote = ray.remote(
            concurrency_groups={"score": SHARDS_AT_ONCE, "control": 1}
        )(actor).options(
            num_gpus=job.gpus,
            num_cpus=job.cpus,
            max_restarts=0,  # the dispatcher owns retries and replacements
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )  # fmt: skip

    def spawn(self) -> Any:
        return self._remote.remote(self._job)

    def start(self, actor: Any) -> Any:
        return actor.start.remote()

    def score(self, actor: Any, shard: Shard) -> Any:
        return actor.score.remote(shard)

    def progress(self, actor: Any) -> Any:
        return actor.progress.remote()

    def wait(self, calls: Sequence[Any], timeout_s: float) -> list[Any]:
        """Those calls that have ended, after at most `timeout_s` seconds."""
        if not calls:
            time.sleep(timeout_s)
            return []
        done, _ = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        more, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return list({*done, *more})

    def result(self, call: Any) -> Any:
        """What an ended call returned.

        Raises:
            ActorLostError: the actor, its node or its memory is gone.
        """
        try:
            return ray.get(call)
        except ray.exceptions.RayError as error:
            text = str(error)
            raise ActorLostError(
                f"{type(error).__name__}: {text.splitlines()[0]}",
                node_died=any(words in text for words in NODE_DIED),
            ) from error

    def kill(self, actor: Any) -> None:
        ray.kill(actor, no_restart=True)

    def capacity(self) -> int:
        """Actors that the cluster has room for as it is now; at least 1, to make it grow."""
        if not any(node["Alive"] for node in ray.nodes()):
            raise StoppedError("Ray has died: none of its nodes is alive any more")
        resources = ray.cluster_resources()
        if self._job.gpus > 0:
            return max(1, int(resources.get("GPU", 0)) * int(1 / self._job.gpus))
        return max(1, int(resources.get("CPU", 0) // self._job.cpus))

    def describe(self) -> str:
        """The cluster's resources and what one actor needs, for an error message."""
        resources = {k: v for k, v in ray.cluster_resources().items() if k in ("CPU", "GPU")}
        free = {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
        return (
            f"the cluster has {resources}, free are {free}; one actor needs "
            f"GPU {self._job.gpus:g}, CPU {self._job.cpus}"
        )


def describe_device(wants_gpu: bool) -> str:
    """What TensorFlow computes on here.

    Raises:
        InputError: the machine has an NVIDIA GPU and TensorFlow cannot use it; scoring on its
            CPU instead would be a silent, hundredfold slowdown.
    """
    from batchinfer.tf1 import tf

    if not wants_gpu:
        return "cpu"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if tf.config.experimental.list_physical_devices("GPU"):
        return f"gpu {visible}"
    if os.path.isdir("/proc/driver/nvidia/gpus"):
        raise InputError(
            f"TensorFlow {tf.__version__} on {os.uname().nodename} cannot use GPU {visible}: the "
            "driver is there, its CUDA libraries are not (1.15 needs CUDA 10.0 and cuDNN 7). "
            "Install them, or score with --device cpu."
        )
    return f"cpu (logical GPU {visible})"


def device_type(on_gpu: bool, callers: int, gpus: float, xla: bool) -> str:
    """What a batch size holds for: the same kind of device, used in the same way."""
    how = " xla" if xla else ""
    if not on_gpu:
        return f"cpu {callers}{how}"
    for path in sorted(glob.glob("/proc/driver/nvidia/gpus/*/information")):
        with open(path) as file:
            for line in file:
                if line.startswith("Model:"):
                    return f"{line.partition(':')[2].strip()} {gpus:g}{how}"
    return f"gpu {gpus:g}{how}"


def _failure(error: BaseException, stage: str = "") -> dict[str, Any]:
    """What the dispatcher has to know of an error: whose fault it is, in words without a trace.

    The output's trouble is the store's, whatever its kind: an expired credential would
    otherwise be blamed on every shard in turn. A row that the model's ops refuse is the
    shard's. Anything unknown is the process's: after a CUDA error it is not to be trusted.
    """
    from batchinfer.tf1 import tf

    refused = (tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, tf.errors.DataLossError)
    output = isinstance(error, StorageError) and stage == "writing"
    if isinstance(error, TransientStorageError) or output:
        kind = "storage"
    elif isinstance(error, BadRowError):
        kind = "row"
    elif isinstance(error, (BatchinferError, *refused)):
        kind = "shard"
    else:
        kind = "process"
    text = str(error) if isinstance(error, BatchinferError) else first_line(error)
    return {"error": text, "kind": kind, "final": isinstance(error, InputError)}
