"""A clean graph -> the ops that a GPU session leaves to the CPU, their inputs copied there."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Tuple

from batchinfer.tf1 import tf
from conversion.graphs import kernels
from conversion.graphs.graph import every_node

# Without a GPU kernel, and nothing is lost: they have no tensor to copy, or one of the host.
AT_HOME_ON_THE_HOST = frozenset(
    ("Placeholder", "PlaceholderWithDefault", "NoOp", "LoopCond", "Assert", "ControlTrigger")
)


@dataclass(frozen=True)
class HostOp:
    """An op without a GPU kernel, which a GPU session runs on the host, its inputs copied there.

    Attributes:
        op: its name.
        count: how many nodes of it.
        why: what there is no GPU kernel for.
    """

    op: str
    count: int
    why: str


def host_ops(graph_def: Any, target: str) -> Tuple[HostOp, ...]:
    """What a GPU session leaves to the CPU by soft placement; empty for a CPU target."""
    if target != "gpu" or not kernels.checks_gpu():
        return ()
    functions = {function.signature.name for function in graph_def.library.function}
    found: Dict[Tuple[str, str], int] = Counter()
    for _, node in every_node(graph_def):
        if node.op in functions or node.op in AT_HOME_ON_THE_HOST:
            continue
        if kernels.devices(node) == {"CPU"} and not _of_strings(node):
            found[node.op, _no_gpu_kernel(node)] += 1
    return tuple(HostOp(op, count, why) for (op, why), count in sorted(found.items()))


def _no_gpu_kernel(node: Any) -> str:
    return f"no GPU kernel for {kernels.types(node)}" if kernels.types(node) else "no GPU kernel"


def _of_strings(node: Any) -> bool:
    """Strings live on the host on every machine."""
    return any(attr.type == tf.string.as_datatype_enum for attr in node.attr.values())
