"""Updates in place -> updates of a copy."""

from __future__ import annotations

from typing import Any, Callable, List, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graft import Site, graft
from conversion.graphs.graph import GraphView
from conversion.surgery.rewrite import Rewrite


def inplace_update(view: GraphView) -> Tuple[Any, int]:
    """On a TPU these ops give a new tensor; on a CPU or GPU they write into their input.

    A decoder's cache that starts as a constant, as it does where the batch is static, would keep
    what the last run wrote: the first batch comes out right, and later ones may not.
    """
    return graft(view, {op: _on_a_copy(op) for op in ("InplaceUpdate", "InplaceAdd", "InplaceSub")})


def _on_a_copy(op: str) -> Callable[[Site], Optional[List[Any]]]:
    def build(site: Site) -> Optional[List[Any]]:
        x, rows, values = site.inputs
        return [getattr(tf.raw_ops, op)(x=tf.raw_ops.DeepCopy(x=x), i=rows, v=values)]

    return build


REWRITE = Rewrite(
    name="inplace_update",
    does="copies tensors before rows of them are written in place, as a TPU does",
    run=inplace_update,
)
