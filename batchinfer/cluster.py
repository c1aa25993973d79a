"""Ray, started on this machine or joined; and what to do when the process is told to stop."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
from pathlib import Path
from types import FrameType
from typing import Any, Iterator, Optional

import ray

from batchinfer import local_ray
from batchinfer.actors import RayEngine, ScoringActor
from batchinfer.driver import Backend
from batchinfer.errors import InputError
from batchinfer.job import ScoringJob
from batchinfer.options import ClusterOptions

CONNECT_TIMEOUT_S = 10
PROJECT = str(Path(__file__).resolve().parent.parent)


@contextlib.contextmanager
def connected(cluster: ClusterOptions) -> Iterator[StopSignal]:
    """Join the cluster at `address` (or the one this Ray job runs on), else start Ray here.

    Gives the signal that may tell this process to stop.

    Raises:
        InputError: there is no cluster at the address.
    """
    address = _address(cluster)
    if address:
        _check_reachable(address)
        if cluster.num_gpus is not None:
            raise InputError("num_gpus is for a Ray that is started here; a cluster has its own")
    quiet = {"log_to_driver": False, "logging_level": logging.WARNING}
    try:
        if address:
            ray.init(address=address, **_code_for_workers(), **quiet)
        else:
            local_ray.start(PROJECT, cluster.num_gpus, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        why = str(error) or type(error).__name__
        raise InputError(f"cannot reach or start Ray ({address or 'local'}): {why}") from error
    try:
        with StopSignal().installed() as signals:
            yield signals
    finally:
        ray.shutdown()


def wants_gpu(cluster: ClusterOptions) -> bool:
    """Whether actors shall reserve GPUs; `auto` asks the cluster."""
    if cluster.device != "auto":
        return cluster.device == "gpu"
    return ray.cluster_resources().get("GPU", 0) > 0


class StopSignal:
    """Remembers that SIGTERM or SIGINT came; the driver looks at it between two steps.

    Made after `ray.init`, which installs handlers of its own over earlier ones (Ray 2.60).
    """

    def __init__(self) -> None:
        self.stop_name: Optional[str] = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[StopSignal]:
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in before:
            signal.signal(number, self._remember)
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: Optional[FrameType]) -> None:
        self.stop_name = signal.Signals(number).name


def ray_backend(actor: type[ScoringActor] = ScoringActor) -> Backend:
    """The production backend of `driver.run`; see `RayEngine` for `actor`."""
    return Backend(connected, wants_gpu, functools.partial(_engine, actor))


def _engine(actor: type[ScoringActor], job: ScoringJob, cluster: ClusterOptions) -> RayEngine:
    """The engine for a job, once a Ray that cannot grow is known to have room for an actor.

    Raises:
        InputError: this machine will never have what one actor needs.
    """
    engine = RayEngine(job, actor)
    resources = ray.cluster_resources()
    lacks = resources.get("GPU", 0) < job.gpus or resources.get("CPU", 0) < job.cpus
    if lacks and not _address(cluster):
        raise InputError(
            f"{engine.describe()}; this Ray was started here and cannot grow. Expected fewer "
            "--cpus-per-actor, --device cpu, or --num-gpus N for logical GPUs"
        )
    return engine


def _check_reachable(address: str) -> None:
    """Ray itself tries an unreachable address for more than two minutes, and says nothing."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:  # such as "auto"
        return
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error}. Expected HOST:PORT of its head (6379 "
            "by default), or ray://HOST:10001, reachable from here"
        ) from error


def _address(cluster: ClusterOptions) -> Optional[str]:
    return cluster.address or os.environ.get("RAY_ADDRESS")


def _code_for_workers() -> dict[str, Any]:
    """Send the code along, unless this is a Ray job: its working_dir has brought it already."""
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        return {}
    return {"runtime_env": {"py_modules": [os.path.join(PROJECT, "batchinfer")]}}
