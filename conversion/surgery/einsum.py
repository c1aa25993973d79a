"""Einsum and XlaEinsum -> transposes, reshapes and matrix products."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple

from conversion.contraction import contraction, explicit
from conversion.graft import Site, graft
from conversion.graph import GraphView, changed
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value


def einsum(view: GraphView) -> Tuple[Any, int]:
    """`tf.einsum` in a TPU context gives XlaEinsum, which has a kernel on a TPU only.

    Einsum has a kernel, but in TF 1.15 none for float16, and none that tensor cores run. What
    cannot be written as one matrix product (a label twice in one operand, `...` for dimensions of
    unknown number) stays an Einsum.
    """
    graph_def, _ = changed(view.graph_def, _become_einsum)
    made, count = graft(GraphView(graph_def, view.roots), {"Einsum": _build})
    renamed = any(node.op == "XlaEinsum" for node in view.graph_def.node)
    return (made, count) if count or renamed else (view.graph_def, 0)


def _become_einsum(node: Any) -> bool:
    """XlaEinsum, of which TensorFlow does not know the shape, as the op of which it does."""
    if node.op != "XlaEinsum":
        return False
    node.op = "Einsum"
    node.attr["N"].i = 2
    node.attr["equation"].s = explicit(node.attr["equation"].s.decode()).encode()
    return True


def _build(site: Site) -> Optional[List[Any]]:
    made = contraction(attr_value(site.node, "equation").s.decode(), site.inputs)
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
