"""params["context"] of TPUEstimator, for one host with one device."""

from __future__ import annotations

from typing import Any, Callable, Optional, Tuple

HOST = "/device:CPU:0"


class HostContext:
    """Answers what `tf.contrib.tpu.TPUContext` answers."""

    num_replicas = 1
    num_hosts = 1
    num_cores = 1
    num_of_replicas_per_host = 1
    current_host = 0
    device_assignment: Optional[Any] = None

    def current_input_fn_deployment(self) -> Tuple[str, int, int, int]:
        """Host device, index of this call, number of calls, replicas that it feeds."""
        return HOST, 0, 1, 1

    def device_for_replica(self, replica_id: int) -> Tuple[str, int]:
        """Host device, and the device's ordinal on it."""
        return HOST, replica_id

    @property
    def tpu_host_placement_function(self) -> Callable[[int], str]:
        return lambda host_id: HOST
