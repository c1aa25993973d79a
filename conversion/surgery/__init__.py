"""TPU graph -> graph for one CPU or GPU: the rewrites, and the only order they run in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Tuple

from conversion.graphs import functions
from conversion.graphs.graph import GraphView, check
from conversion.surgery import (
    constant_branches,
    cross_replica,
    delete_bookkeeping,
    dilated_depthwise,
    einsum,
    float16,
    guarantee_const,
    inline_functions,
    inplace_update,
    onehot_gather,
    replicas,
    replicated_io,
    resource_variables,
    retype_bfloat16,
    scrub,
    sparse_matmul,
    sweep,
    xla_control_flow,
    xla_ops,
)
from conversion.surgery.rewrite import Rewrite

REWRITES = (
    sweep.REWRITE,  # first, so that training and initialisation are not looked at
    inline_functions.REWRITE,
    xla_control_flow.REWRITE,
    replicas.REWRITE,
    replicated_io.REWRITE,
    constant_branches.REWRITE,
    inline_functions.REWRITE,  # again, for the branches that are taken
    cross_replica.REWRITE,
    guarantee_const.REWRITE,
    delete_bookkeeping.REWRITE,
    resource_variables.REWRITE,
    retype_bfloat16.REWRITE,
    xla_ops.REWRITE,
    dilated_depthwise.REWRITE,
    sparse_matmul.REWRITE,
    einsum.REWRITE,
    onehot_gather.REWRITE,
    inplace_update.REWRITE,
    sweep.REWRITE,  # again, for what only the deleted nodes needed
    float16.REWRITE,
    scrub.REWRITE,
)


@dataclass(frozen=True)
class Applied:
    """A rewrite that ran, and the number of places it changed."""

    rewrite: str
    count: int


def operate(
    graph_def: Any, roots: Iterable[str], precision: str = "float32", target: str = "gpu"
) -> Tuple[Any, Tuple[Applied, ...]]:
    """Run every rewrite and check the graph after each that changed it.

    Args:
        roots: names of the nodes to keep with all they need.
        precision: what matrix products and convolutions compute in, "float32" or "float16".
        target: where the graph shall run, "gpu" or "cpu".

    Raises:
        ConversionError: a rewrite broke the graph, or a function cannot be inlined.
    """
    roots, applied = tuple(roots), []
    for rewrite in REWRITES:
        if rewrite.only_for not in ("", precision, target):
            continue
        graph_def, count = _run(rewrite, graph_def, roots)
        if count:
            check(graph_def, after=rewrite.name)
        applied.append(Applied(rewrite.name, count))
    return graph_def, tuple(applied)


def _run(rewrite: Rewrite, graph_def: Any, roots: Tuple[str, ...]) -> Tuple[Any, int]:
    if rewrite.sees == "graph":
        return rewrite.run(GraphView(graph_def, roots))
    view = GraphView(functions.flat(graph_def), roots)
    if rewrite.sees == "bodies":
        graph_def, count = functions.in_each_body(view, rewrite.run)
    else:
        graph_def, count = rewrite.run(view)
    return functions.named(graph_def), count
