"""run(): prepare -> Ray -> lease and run.json -> shards to actors -> audit, `_SUCCESS`, report."""

from __future__ import annotations

import functools
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
    CommitError,
    StoppedError,
    StorageError,
)
from batchinfer.hold import Hold, despite_storage, holding
from batchinfer.job import ScoringJob
from batchinfer.ledger import Ledger, ShardRecord
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from batchinfer.prepare import PreparedRun, prepare
from batchinfer.progress import ProgressDisplay
from batchinfer.report import Outcome, build_report
from batchinfer.run_folder import STATE

LOG = logging.getLogger("batchinfer")
FLUSH_EVERY_S = 5.0
PROFILE = f"{STATE}/profile.json"
EXIT_STATUS = {"done": EXIT_OK, "gave_up": EXIT_GAVE_UP, "stopped": EXIT_STOPPED}


@dataclass(frozen=True)
class Backend:
    """What runs the actors: Ray (`cluster.ray_backend`), or a test's threads.

    Attributes:
        connected: a context in which actors can be started; gives an object whose `stop_name`
            is the name of the signal that told this process to stop, or None.
        wants_gpu: whether actors shall reserve GPUs.
        engine: makes the dispatcher's engine for a job; refuses what the cluster can never run.
    """

    connected: Callable[[ClusterOptions], ContextManager[Any]]
    wants_gpu: Callable[[ClusterOptions], bool]
    engine: Callable[[ScoringJob, ClusterOptions], Any]


def later(make: Callable[[], Backend]) -> Backend:
    """A backend that is made when something is to be scored, and not before."""
    made = functools.lru_cache(maxsize=None)(make)
    return Backend(
        lambda cluster: made().connected(cluster),
        lambda cluster: made().wants_gpu(cluster),
        lambda job, cluster: made().engine(job, cluster),
    )


def run(
    options: ScoreOptions, cluster: ClusterOptions, faults: FaultOptions, backend: Backend
) -> dict[str, Any]:
    """Score everything that is missing and say how it went.

    Returns:
        The report (see `report.build_report`) with `exit_status`: 0, 1 or 75.

    Raises:
        InputError: before any prediction was written.
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
        with backend.connected(cluster) as signals:
            gpu = backend.wants_gpu(cluster)
            engine = backend.engine(_job(prepared, options, cluster, faults, gpu), cluster)
            with holding(prepared, faults.lease_ttl_s) as hold:
                scoring = Scoring(hold, cluster, faults, started, options.profile)
                return scoring.run(engine, signals)
    if not prepared.finished:  # killed between the last part and `_SUCCESS`
        with holding(prepared, faults.lease_ttl_s) as hold:
            return Scoring(hold, cluster, faults, started).run(None, None)
    report = build_report(
        prepared.folder.url,
        prepared.run,
        plan,
        Outcome("done", done, adopted=prepared.adopted, seconds=time.monotonic() - started),
    )
    return {**report, "exit_status": EXIT_OK}


class Scoring:
    """One run while it lasts: what was committed so far, and the dispatcher that does it."""

    def __init__(
        self,
        hold: Hold,
        cluster: ClusterOptions,
        faults: FaultOptions,
        started: float,
        profiled: bool = False,
    ) -> None:
        self._hold = hold
        self._cluster = cluster
        self._faults = faults
        self._profiled = profiled
        self._started = self._flushed_at = started
        self.done = dict(hold.prepared.done)
        self.scored: list[ShardRecord] = []
        self._rows = sum(record.rows + record.rejected for record in self.done.values())
        self._rejected = sum(record.rejected for record in self.done.values())
        self._most_rejected = faults.most_bad_rows(hold.prepared.plan.num_rows)
        self._ledger = Ledger(hold.prepared.folder, hold.lease.epoch)
        for record in hold.prepared.adopted:
            self._ledger.add(record)

    def run(self, engine: Any, signals: Any) -> dict[str, Any]:
        """Hand out what is missing; end with the audit, or with what has to wait."""
        prepared = self._hold.prepared
        missing = [shard for shard in prepared.plan.shards if shard.index not in self.done]
        dispatcher = Dispatcher(
            engine,
            missing,
            self._faults,
            self._keep,
            self._cluster.actors,
            worked_before=bool(self.done),
            # A store that ignores the condition on a create would let the later try write again.
            second_try=self._faults.second_try and prepared.exclusive,
        )
        self._blame = dispatcher.blame
        self._blame.hopeless = self._blame.hopeless or self._too_many_rejected()
        display = ProgressDisplay(prepared.plan.num_rows, self._rows)
        try:
            dispatcher.run(lambda: self._between(dispatcher, display, signals))
            self._ledger.flush()
            self._hold.lease.check()
            reason = dispatcher.blame.hopeless or self._said_of_rejects()
            status = "gave_up"
            if dispatcher.blame.given_up or not self._too_many_rejected():
                status = finish(prepared, self.done, dispatcher.blame.given_up)
        except CommitError as error:
            status, reason = "gave_up", str(error)
        except (StoppedError, StorageError) as error:
            status, reason = "stopped", f"{error}; run the same command again to continue"
        finally:
            display.close()
        with despite_storage("flush the ledger"):
            self._ledger.flush()
        return self._report(status, dispatcher, reason)

    def _said_of_rejects(self) -> Optional[str]:
        if not self._rejected:
            return None
        folder = self._hold.prepared.folder
        return (
            f"{self._rejected:,} of {self._rows:,} rows were rejected; "
            f"{folder.url}/{STATE}/rejects has each with its reason"
        )

    def _too_many_rejected(self) -> Optional[str]:
        if self._most_rejected is None or self._rejected <= self._most_rejected:
            return None
        return (
            f"{self._said_of_rejects()}. At most {self._most_rejected:,} may be: allow more with "
            "--max-bad-rows or --max-bad-fraction, and the same command continues"
        )

    def _keep(self, record: ShardRecord) -> None:
        self.done[record.shard] = record
        self.scored.append(record)
        self._rows += record.rows + record.rejected
        self._rejected += record.rejected
        self._ledger.add(record)
        self._blame.hopeless = self._blame.hopeless or self._too_many_rejected()

    def _between(self, dispatcher: Dispatcher, display: ProgressDisplay, signals: Any) -> None:
        if signals.stop_name:
            raise StoppedError(f"stopped by {signals.stop_name}")
        if self._hold.heart.lost:
            raise self._hold.heart.lost
        if time.monotonic() - self._flushed_at >= FLUSH_EVERY_S:
            self._ledger.flush()
            self._flushed_at = time.monotonic()
        display.show(self._rows + dispatcher.rows_in_hand(), _note(dispatcher))

    def _report(self, status: str, dispatcher: Dispatcher, reason: Optional[str]) -> dict[str, Any]:
        """Say how it went: in the log, beside the predictions, and to the caller."""
        prepared, now = self._hold.prepared, time.monotonic()
        ready_at = dispatcher.first_ready_at
        outcome = Outcome(
            status,
            self.done,
            self.scored,
            prepared.adopted,
            dispatcher.blame.given_up,
            dispatcher.devices,
            dispatcher.actors_lost,
            dispatcher.blame.retries,
            seconds=now - self._started,
            seconds_scoring=now - ready_at if ready_at is not None else 0.0,
            batch_rows=dispatcher.batch_rows,
            reason=reason,
        )
        report = build_report(prepared.folder.url, prepared.run, prepared.plan, outcome)
        with despite_storage("write the report"):
            prepared.folder.put_json(f"{STATE}/report.json", report)
            if self._profiled:
                profile = dispatcher.profile.to_json()
                prepared.folder.store.put(prepared.folder.at(PROFILE), profile)
        if reason:
            LOG.warning(reason)
        return {**report, "exit_status": EXIT_STATUS[status]}


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
        outputs=prepared.columns.outputs,
        preprocess=prepared.columns.preprocess,
        num_rows=sum(s.num_rows for s in prepared.plan.shards if s.index not in prepared.done),
        most_shard_rows=max((s.num_rows for s in prepared.plan.shards), default=0),
        batch_rows=options.batch_rows,
        gpus=cluster.gpus_per_actor if gpu else 0.0,
        cpus=1 if gpu else cluster.cpus_per_actor,
        storage_options=dict(options.storage_options),
        retry_budget_s=faults.retry_budget_s,
        exclusive=prepared.exclusive,
        xla=options.xla,
        profile=options.profile,
        fail_on_bad_row=faults.on_bad_row == "fail",
    )


def _note(dispatcher: Dispatcher) -> str:
    ready = sum(worker.ready for worker in dispatcher.workers)
    parts = [f"{ready} of {len(dispatcher.workers)} actors ready"]
    if dispatcher.blame.retries:
        parts.append(f"{dispatcher.blame.retries} retries")
    if dispatcher.blame.given_up:
        parts.append(f"{len(dispatcher.blame.given_up)} shards given up")
    return ", ".join(parts)
