"""Ray started on this machine for one run: only the processes that a run needs.

Ray 2.7 starts ten processes on a machine of two cores, 8 s of CPU and 900 MB, before the first
actor. A run uses GCS, raylet, the raylet's two agents, and its actors. Left out are the
autoscaler's monitor, the API server (`ray.init` waits for it before it starts the raylet), the
log monitor (the driver shows no log of workers), and a worker per core that would idle, and for
which the first actor's own process would have to wait.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterator

import ray

SPARED = ("start_monitor", "start_api_server", "start_log_monitor")  # of Ray 2.7's Node
OBJECT_STORE_BYTES = 100 << 20  # predictions never pass through it

# Read by Ray's processes, which inherit them; what the user has set stays.
ENVIRONMENT = {
    # Workers shall not run at nice 15, Ray's default, behind whatever else the machine does.
    "RAY_worker_niceness": "0",
    # On a busy machine Ray's agent can take longer than its 30 s, and its raylet goes with it.
    "RAY_agent_register_timeout_ms": "120000",
    "RAY_prestart_worker_first_driver": "0",
}


def start(project: str, num_gpus: Any, **arguments: Any) -> None:
    """`ray.init` on this machine alone.

    Args:
        project: folder that workers shall be able to import from: a clone is not installed.
        num_gpus: logical GPUs; None is what the machine has.
        arguments: more of `ray.init`.
    """
    _prepend_path("PYTHONPATH", project)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    with _spared():
        ray.init(
            address="local",
            num_gpus=num_gpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            **arguments,
        )


@contextlib.contextmanager
def _spared() -> Iterator[None]:
    """Within it, Ray 2.7 starts without what the module's first lines name.

    `ray.init` has no arguments for that, so that its own names are taken: of the version that
    was tried, and nowhere else. Any other Ray starts whole.
    """
    if not ray.__version__.startswith("2.7."):
        yield
        return
    node = ray._private.node.Node
    before = {name: getattr(node, name) for name in SPARED}
    try:
        for name in SPARED:
            setattr(node, name, _nothing)
        yield
    finally:
        for name, original in before.items():
            setattr(node, name, original)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _prepend_path(name: str, folder: str) -> None:
    before = os.environ.get(name, "").split(os.pathsep)
    if folder not in before:
        os.environ[name] = os.pathsep.join([folder] + [part for part in before if part])
