"""run(): prepare -> Ray -> lease and run.json -> shards to actors -> audit, `_SUCCESS`, report."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Optional

from batchinfer.audit import finish
from batchinfer.dispatcher import Dispatcher
from batchinfer.errors import (
    EXIT_GAVE_UP,
    EXIT_OK,
    EXIT_STOPPED,
    StoppedError,
    TransientStorageError,
)
from batchinfer.hold import Hold, despite_storage, holding
from batchinfer.job import ScoringJob
from batchinfer.ledger import Ledger, ShardRecord
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from batchinfer.prepare import PreparedRun, prepare
from batchinfer.progress import ProgressDisplay
from batchinfer.report import build_report
from batchinfer.run_folder import STATE

LOG = logging.getLogger("batchinfer")
FLUSH_EVERY_S = 5.0
EXIT_STATUS = {"done": EXIT_OK, "gave_up": EXIT_GAVE_UP, "stopped": EXIT_STOPPED}


@dataclass(frozen=True)
class Backend:
    """What runs the actors: Ray (`cluster.ray_backend`), or a test's threads.

    Attributes:
        connected: a context in which actors can be started; gives an object whose `stop_name`
            is the name of the signal that told this process to stop, or None.
        wants_gpu: whether actors shall reserve GPUs.
        engine: makes the dispatcher's engine for a job.
    """

    connected: Callable[[ClusterOptions], ContextManager[Any]]
    wants_gpu: Callable[[ClusterOptions], bool]
    engine: Callable[[ScoringJob], Any]


def run(
    options: ScoreOptions, cluster: ClusterOptions, faults: FaultOptions, backend: Backend
) -> dict[str, Any]:
    """Score everything that is missing and say how it went.

    Returns:
        The report (see `report.build_report`) with `exit_status`: 0, 1 or 75.

    Raises:
        InputError: before anything was written.
        StoppedError: another driver is at work on the output.
    """
    started = time.monotonic()
    prepared = prepare(options, faults)
    plan, done = prepared.plan, prepared.done
    LOG.info(
        f"{plan.num_rows:,} rows in {len(plan.shards):,} shards, {len(done):,} shards done before; "
        f"output {prepared.folder.url}"
    )
    if len(done) < len(plan.shards):
        with backend.connected(cluster) as signals, holding(prepared, faults.lease_ttl_s) as hold:
            scoring = Scoring(hold, cluster, faults, started)
            gpu = backend.wants_gpu(cluster)
            engine = backend.engine(_job(prepared, options, cluster, faults, gpu))
            return scoring.run(engine, signals)
    if not prepared.finished:
        with holding(prepared, faults.lease_ttl_s) as hold:
            finish(hold.prepared, hold.prepared.done, {})
    return _report(prepared, "done", started)


class Scoring:
    """One run while it lasts: what was committed so far, and the dispatcher that does it."""

    def __init__(
        self, hold: Hold, cluster: ClusterOptions, faults: FaultOptions, started: float
    ) -> None:
        self._hold = hold
        self._cluster = cluster
        self._faults = faults
        self._started = self._flushed_at = started
        self.done = dict(hold.prepared.done)
        self.scored: list[ShardRecord] = []
        self._rows = sum(record.rows + record.rejected for record in self.done.values())
        self._ledger = Ledger(hold.prepared.folder, hold.lease.epoch)
        for record in hold.prepared.adopted:
            self._ledger.add(record)

    def run(self, engine: Any, signals: Any) -> dict[str, Any]:
        """Hand out what is missing; end with the audit, or with what has to wait."""
        prepared = self._hold.prepared
        missing = [shard for shard in prepared.plan.shards if shard.index not in self.done]
        dispatcher = Dispatcher(engine, missing, self._faults, self._keep, self._cluster.actors)
        display = ProgressDisplay(prepared.plan.num_rows, self._rows)
        try:
            dispatcher.run(lambda: self._between(dispatcher, display, signals))
            self._ledger.flush()
            self._hold.lease.check()
            status, reason = finish(prepared, self.done, dispatcher.quarantined), None
        except (StoppedError, TransientStorageError) as error:
            status, reason = "stopped", str(error)
            with despite_storage("flush the ledger"):
                self._ledger.flush()
        finally:
            display.close()
        return _report(prepared, status, self._started, self, dispatcher, reason)

    def _keep(self, record: ShardRecord) -> None:
        self.done[record.shard] = record
        self.scored.append(record)
        self._rows += record.rows + record.rejected
        self._ledger.add(record)

    def _between(self, dispatcher: Dispatcher, display: ProgressDisplay, signals: Any) -> None:
        if signals.stop_name:
            raise StoppedError(f"stopped by {signals.stop_name}")
        if self._hold.heart.lost:
            raise self._hold.heart.lost
        if time.monotonic() - self._flushed_at >= FLUSH_EVERY_S:
            self._ledger.flush()
            self._flushed_at = time.monotonic()
        display.show(self._rows + dispatcher.rows_in_hand(), _note(dispatcher))


def _job(
    prepared: PreparedRun,
    options: ScoreOptions,
    cluster: ClusterOptions,
    faults: FaultOptions,
    gpu: bool,
) -> ScoringJob:
    return ScoringJob(
        bundle=prepared.bundle_url,
        bundle_digest=prepared.bundle.digest,
        output=prepared.folder.url,
        fingerprint=prepared.fingerprint,
        signature=prepared.columns.signature.to_json(),
        columns=dict(prepared.columns.by_input),
        kept=prepared.columns.kept.serialize().to_pybytes(),
        batch_rows=options.batch_rows,
        gpus=cluster.gpus_per_actor if gpu else 0.0,
        cpus=1 if gpu else cluster.cpus_per_actor,
        storage_options=dict(options.storage_options),
        retry_budget_s=faults.retry_budget_s,
        exclusive=prepared.exclusive,
    )


def _report(
    prepared: PreparedRun,
    status: str,
    started: float,
    scoring: Optional[Scoring] = None,
    dispatcher: Optional[Dispatcher] = None,
    reason: Optional[str] = None,
) -> dict[str, Any]:
    """The report, put beside the predictions; a run that had nothing to do leaves the last one."""
    now = time.monotonic()
    ready_at = dispatcher.first_ready_at if dispatcher else None
    report = build_report(
        status,
        prepared.folder.url,
        prepared.run,
        prepared.plan,
        scoring.done if scoring else prepared.done,
        scoring.scored if scoring else [],
        prepared.adopted,
        dispatcher,
        seconds=now - started,
        seconds_scoring=now - ready_at if ready_at is not None else 0.0,
        reason=reason,
    )
    if scoring:
        with despite_storage("write the report"):
            prepared.folder.put_json(f"{STATE}/report.json", report)
    if reason:
        LOG.warning(f"{reason}; run the same command again to continue")
    return {**report, "exit_status": EXIT_STATUS[status]}


def _note(dispatcher: Dispatcher) -> str:
    ready = sum(worker.ready for worker in dispatcher.workers)
    parts = [f"{ready} of {len(dispatcher.workers)} actors ready"]
    if dispatcher.retries:
        parts.append(f"{dispatcher.retries} retries")
    if dispatcher.quarantined:
        parts.append(f"{len(dispatcher.quarantined)} shards given up")
    return ", ".join(parts)
