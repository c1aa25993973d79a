"""SparseMatMul -> MatMul."""

from __future__ import annotations

from typing import Any, List, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graft import Site, graft
from conversion.graphs.graph import GraphView
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value


def sparse_matmul(view: GraphView) -> Tuple[Any, int]:
    """`tf.matmul` writes it where one side is bfloat16 and the other float32; no GPU has it.

    The sides stay dense: which of them holds many zeros is a hint that changes no sum.
    """
    return graft(view, {"SparseMatMul": _build})


def _build(site: Site) -> List[Any]:
    a, b = (tf.cast(one, tf.float32) for one in site.inputs)
    transposed = [attr_value(site.node, name).b for name in ("transpose_a", "transpose_b")]
    return [tf.matmul(a, b, *transposed)]


REWRITE = Rewrite(
    name="sparse_matmul",
    does="multiplies densely where `tf.matmul` of mixed precision became a product for CPUs only",
    run=sparse_matmul,
    fates={"SparseMatMul": "replaced by MatMul"},
)
