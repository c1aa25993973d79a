"""The right to write an output, for the length of a `with`: lease, heartbeat, `run.json`."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Iterator

from batchinfer.done import what_is_done
from batchinfer.errors import OutputConflictError, StorageError
from batchinfer.lease import Heart, Lease, acquire
from batchinfer.prepare import PreparedRun
from batchinfer.run_folder import STATE, RunFolder, plan_name

LOG = logging.getLogger("batchinfer")


@dataclass(frozen=True)
class Hold:
    """A run whose output this process may write.

    Attributes:
        prepared: with `done` as it was once the lease was held.
        lease: to check before anything final.
        heart: its `lost` says when the output was taken over.
    """

    prepared: PreparedRun
    lease: Lease
    heart: Heart


@contextlib.contextmanager
def holding(prepared: PreparedRun, ttl_s: float) -> Iterator[Hold]:
    """Take the lease, put `run.json` in place, and release the lease at the end.

    Raises:
        StoppedError: another driver is at work on this output.
        OutputConflictError: another run was started here since `prepare` looked.
    """
    lease = acquire(prepared.folder, ttl_s)
    _remove_scratch(prepared.folder)
    heart = Heart(lease, ttl_s)
    heart.start()
    try:
        if not prepared.started_before:
            _write_run(prepared, lease)
        yield Hold(_look_again(prepared), lease, heart)
    finally:
        heart.stop()
        if heart.lost is None:
            with despite_storage("release the lease"):
                lease.release()


@contextlib.contextmanager
def despite_storage(what: str) -> Iterator[None]:
    """Do what the predictions do not depend on; a store that fails is said, not raised."""
    try:
        yield
    except StorageError as error:
        LOG.warning("could not %s: %s", what, error)


def _remove_scratch(folder: RunFolder) -> None:
    """Remove what killed writers left half written: on local disks, under names no reader sees.

    Before the heart beats: it writes its beats there, too.
    """
    with despite_storage("remove what a killed writer left"):
        for left in folder.store.list(folder.at(f"{STATE}/tmp")):
            folder.store.delete(left.path)


def _look_again(prepared: PreparedRun) -> PreparedRun:
    """What is done, now that nobody else hands out shards: the last holder's actors outlive it.

    That holder may even have begun after `prepare` looked, with the same run.
    """
    folder, listing = prepared.folder, prepared.folder.list()
    done, adopted = what_is_done(folder, prepared.plan, prepared.fingerprint, listing)
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
