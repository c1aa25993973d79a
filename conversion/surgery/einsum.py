"""Einsum and XlaEinsum -> transposes, reshapes and matrix products."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.contraction import contraction
from conversion.graphs.graft import Site, graft
from conversion.graphs.graph import GraphView
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value

OPS = ("Einsum", "XlaEinsum")


def einsum(view: GraphView) -> Tuple[Any, int]:
    """`tf.einsum` in a TPU context gives XlaEinsum, which has a kernel on a TPU only.

    Einsum has a kernel, but in TF 1.15 none for float16, and none that tensor cores run. What
    cannot be written as one matrix product (a label twice in one operand, `...` for dimensions of
    unknown number) stays an Einsum.
    """
    return graft(view, dict.fromkeys(OPS, _build))


def _build(site: Site) -> Optional[List[Any]]:
    equation = attr_value(site.node, "equation").s.decode()
    made = contraction(equation, site.inputs)
    if made is None and site.node.op == "XlaEinsum":
        made = tf.raw_ops.Einsum(inputs=list(site.inputs), equation=equation)
    return None if made is None else [made]


REWRITE = Rewrite(
    name="einsum",
    does="writes sums of products as matrix products, which every GPU runs at every precision",
    run=einsum,
    fates={
        "XlaEinsum": "replaced by a matrix product, or an Einsum",
        "Einsum": "replaced by a matrix product where it is one",
    },
)
