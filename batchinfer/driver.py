"""run(): prepare -> Ray -> lease and run.json -> shards to actors -> audit, `_SUCCESS`, report."""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from typing import Any, Iterator, Mapping, Optional

from batchinfer.actors import RayEngine, ScoringJob
from batchinfer.cluster import StopSignal, connected, wants_gpu
from batchinfer.dispatcher import Dispatcher
from batchinfer.errors import (
    EXIT_GAVE_UP,
    EXIT_OK,
    EXIT_STOPPED,
    CommitError,
    OutputConflictError,
    StoppedError,
    StorageError,
    TransientStorageError,
)
from batchinfer.lease import Heart, Lease, acquire
from batchinfer.ledger import Ledger, ShardRecord, success_record
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from batchinfer.prepare import PreparedRun, prepare, what_is_done
from batchinfer.progress import ProgressDisplay
from batchinfer.report import build_report, plan_files
from batchinfer.run_folder import STATE, SUCCESS, part_name, plan_name, rejects_name, visible

LOG = logging.getLogger("batchinfer")
FLUSH_EVERY_S = 5.0
CONTINUE = "run the same command again to continue"


def run(options: ScoreOptions, cluster: ClusterOptions, faults: FaultOptions) -> dict[str, Any]:
    """Score everything that is missing and say how it went.

    Returns:
        The report (see `report.build_report`) with `exit_status`: 0, 1 or 75.

    Raises:
        InputError: before anything was written.
    """
    started = time.monotonic()
    prepared = prepare(options, faults)
    plan, done = prepared.plan, prepared.done
    LOG.info(
        "%s rows in %s shards, %s shards done before; output %s",
        f"{plan.num_rows:,}", f"{len(plan.shards):,}", f"{len(done):,}", prepared.folder.url,
    )  # fmt: skip
    if prepared.finished and len(done) == len(plan.shards):
        return _report(prepared, "done", done, [], None, started)
    if len(done) == len(plan.shards):
        with _holding(prepared, faults) as (prepared, lease, _):
            return _finish(prepared, prepared.done, [], None, lease, started)
    with connected(cluster), StopSignal().installed() as stop:
        with _holding(prepared, faults) as (prepared, lease, heart):
            return _score(prepared, options, cluster, faults, lease, heart, stop, started)


def _score(
    prepared: PreparedRun,
    options: ScoreOptions,
    cluster: ClusterOptions,
    faults: FaultOptions,
    lease: Lease,
    heart: Heart,
    stop: StopSignal,
    started: float,
) -> dict[str, Any]:
    plan, done = prepared.plan, dict(prepared.done)
    ledger = Ledger(prepared.folder, lease.epoch)
    for record in prepared.adopted:
        ledger.add(record)
    scored: list[ShardRecord] = []

    def keep(record: ShardRecord) -> None:
        done[record.shard] = record
        scored.append(record)
        ledger.add(record)

    dispatcher = Dispatcher(
        RayEngine(_job(prepared, options, cluster, faults)),
        [shard for shard in plan.shards if shard.index not in done],
        faults,
        keep,
        cluster.actors,
    )
    before = sum(record.rows + record.rejected for record in done.values())
    display = ProgressDisplay(plan.num_rows, before)
    flushed_at = time.monotonic()

    def between() -> None:
        nonlocal flushed_at
        if stop.name:
            raise StoppedError(f"stopped by {stop.name}")
        if heart.lost:
            raise heart.lost
        if time.monotonic() - flushed_at >= FLUSH_EVERY_S:
            ledger.flush()
            flushed_at = time.monotonic()
        committed = before + sum(record.rows + record.rejected for record in scored)
        display.show(committed + dispatcher.rows_in_hand(), _note(dispatcher))

    try:
        dispatcher.run(between)
        ledger.flush()
        return _finish(prepared, done, scored, dispatcher, lease, started)
    except (StoppedError, TransientStorageError) as error:
        with _despite_storage("flush the ledger"):
            ledger.flush()
        return _report(prepared, "stopped", done, scored, dispatcher, started, str(error))
    finally:
        display.close()


def _finish(
    prepared: PreparedRun,
    done: Mapping[int, ShardRecord],
    scored: list[ShardRecord],
    dispatcher: Optional[Dispatcher],
    lease: Lease,
    started: float,
) -> dict[str, Any]:
    """Hold the listing against the records; then `_SUCCESS`, or the list of what was given up."""
    folder, plan = prepared.folder, prepared.plan
    lease.check()
    _audit(prepared, done)
    if len(done) < len(plan.shards):
        assert dispatcher is not None  # only a run that scored can have given something up
        entries = [
            {"shard": index, "files": plan_files(plan, index), "errors": errors}
            for index, errors in sorted(dispatcher.quarantined.items())
        ]
        folder.put_json(f"{STATE}/quarantine.json", {"shards": entries})
        return _report(prepared, "gave_up", done, scored, dispatcher, started)
    folder.store.delete(folder.at(f"{STATE}/quarantine.json"))
    folder.create_json(SUCCESS, success_record(prepared.fingerprint, done))
    return _report(prepared, "done", done, scored, dispatcher, started)


def _audit(prepared: PreparedRun, done: Mapping[int, ShardRecord]) -> None:
    """The objects that lie there are exactly those that were committed, rejects included.

    Raises:
        CommitError: they are not; nothing is deleted and `_SUCCESS` is not written.
    """
    listing = prepared.folder.list()
    fingerprint, shards = prepared.fingerprint, prepared.plan.shards
    expected = {part_name(shards[index], fingerprint): record for index, record in done.items()}
    problems = sorted(set(visible(listing)) ^ set(expected))
    problems += [
        name
        for name, record in expected.items()
        if name in listing and listing[name].size != record.size_bytes
    ]
    problems += [
        name
        for name in (rejects_name(shards[i], fingerprint) for i, r in done.items() if r.rejected)
        if name not in listing
    ]
    if problems:
        raise CommitError(
            f"{prepared.folder.url} does not hold exactly what was committed; {len(problems)} "
            f"object(s) missing, added or of another size: {', '.join(problems[:10])}"
        )


@contextlib.contextmanager
def _holding(
    prepared: PreparedRun, faults: FaultOptions
) -> Iterator[tuple[PreparedRun, Lease, Heart]]:
    """The lease, with `run.json` in place; released at the end, however it comes."""
    lease = acquire(prepared.folder, faults.lease_ttl_s)
    heart = Heart(lease, faults.lease_ttl_s)
    heart.start()
    try:
        if prepared.started_before:
            prepared = _look_again(prepared)
        else:
            _write_run(prepared, lease)
        yield prepared, lease, heart
    finally:
        heart.stop()
        if heart.lost is None:
            with _despite_storage("release the lease"):
                lease.release()


def _look_again(prepared: PreparedRun) -> PreparedRun:
    """What is done, now that nobody else hands out shards: the last holder's actors outlive it."""
    folder = prepared.folder
    done, adopted = what_is_done(folder, prepared.plan, prepared.fingerprint, folder.list())
    return replace(prepared, done=done, adopted=adopted)


def _write_run(prepared: PreparedRun, lease: Lease) -> None:
    folder, plan = prepared.folder, prepared.plan
    folder.store.create(folder.at(plan_name(plan.digest)), plan.to_parquet())
    lease.check()
    if folder.create_json(f"{STATE}/run.json", prepared.run):
        return
    found = folder.read_json(f"{STATE}/run.json") or {}
    if found.get("fingerprint") != prepared.fingerprint:
        raise OutputConflictError(
            f"another run was started on {folder.url} in this very moment (fingerprint "
            f"{found.get('fingerprint')}, this one is {prepared.fingerprint}); use another --output"
        )


def _job(
    prepared: PreparedRun, options: ScoreOptions, cluster: ClusterOptions, faults: FaultOptions
) -> ScoringJob:
    gpu = wants_gpu(cluster)
    return ScoringJob(
        bundle=prepared.bundle.path,
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
    done: Mapping[int, ShardRecord],
    scored: list[ShardRecord],
    dispatcher: Optional[Dispatcher],
    started: float,
    reason: Optional[str] = None,
) -> dict[str, Any]:
    now = time.monotonic()
    ready_at = dispatcher.first_ready_at if dispatcher else None
    report = build_report(
        status,
        prepared.folder.url,
        prepared.run,
        prepared.plan,
        done,
        [*prepared.adopted, *scored],
        dispatcher.quarantined if dispatcher else {},
        seconds=now - started,
        seconds_scoring=now - ready_at if ready_at else 0.0,
        devices=dispatcher.devices if dispatcher else (),
        actors_lost=dispatcher.actors_lost if dispatcher else 0,
        retries=dispatcher.retries if dispatcher else 0,
        reason=reason,
    )
    with _despite_storage("write the report"):
        prepared.folder.put_json(f"{STATE}/report.json", report)
    if reason:
        LOG.warning("%s; %s", reason, CONTINUE)
    status_of = {"done": EXIT_OK, "gave_up": EXIT_GAVE_UP, "stopped": EXIT_STOPPED}
    return {**report, "exit_status": status_of[status]}


@contextlib.contextmanager
def _despite_storage(what: str) -> Iterator[None]:
    """Do something that the objects do not depend on; a store that fails is said, not raised."""
    try:
        yield
    except StorageError as error:
        LOG.warning("could not %s: %s", what, error)


def _note(dispatcher: Dispatcher) -> str:
    ready = sum(worker.ready for worker in dispatcher.workers)
    parts = [f"{ready} of {len(dispatcher.workers)} actors ready"]
    if dispatcher.retries:
        parts.append(f"{dispatcher.retries} retries")
    if dispatcher.quarantined:
        parts.append(f"{len(dispatcher.quarantined)} shards given up")
    return ", ".join(parts)
