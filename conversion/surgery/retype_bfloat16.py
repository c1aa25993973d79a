"""bfloat16 everywhere in a graph -> float32."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, copied, every_node
from conversion.surgery.rewrite import Rewrite, become_identity

FLOAT32_OF = {
    tf.bfloat16.as_datatype_enum: tf.float32.as_datatype_enum,
    tf.bfloat16.as_datatype_enum + 100: tf.float32.as_datatype_enum + 100,  # reference types
}


def retype_bfloat16(view: GraphView) -> Tuple[Any, int]:
    """Retype attributes, constants, and the signatures and bodies of functions.

    A cast that has become one from float32 to float32 becomes an Identity. A constant that
    was rounded to bfloat16 stays rounded: its float32 value is the rounded one. A Bitcast of
    bfloat16 keeps its type, and is refused by the inventory, because its bits would change.
    """
    graph_def = copied(view.graph_def)
    count = sum(_retype_node(node) for _, node in every_node(graph_def))
    for function in graph_def.library.function:
        for argument in list(function.signature.input_arg) + list(function.signature.output_arg):
            argument.type = FLOAT32_OF.get(argument.type, argument.type)
    return graph_def, count


def _retype_node(node: Any) -> bool:
    if node.op == "Bitcast":
        return False
    found = [_retype_attr(attr) for attr in node.attr.values()]
    if any(found) and node.op == "Cast":
        source, target = node.attr["SrcT"].type, node.attr["DstT"].type
        if source == target:
            become_identity(node, target)
    return any(found)


def _retype_attr(attr: Any) -> bool:
    """Retype one attribute in place, and the attributes of the functions it names."""
    kind = attr.WhichOneof("value")
    if kind == "type" and attr.type in FLOAT32_OF:
        attr.type = FLOAT32_OF[attr.type]
        return True
    if kind == "tensor" and attr.tensor.dtype in FLOAT32_OF:
        attr.tensor.CopyFrom(_float32_tensor(attr.tensor))
        return True
    if kind == "list":
        types = [FLOAT32_OF.get(found, found) for found in attr.list.type]
        differs = types != list(attr.list.type)
        attr.list.type[:] = types
        inner = [_retype_attr(one) for func in attr.list.func for one in func.attr.values()]
        return differs or any(inner)
    if kind == "func":
        inner = [_retype_attr(one) for one in attr.func.attr.values()]  # all, not the first
        return any(inner)
    return False


def _float32_tensor(tensor: Any) -> Any:
    values = tf.make_ndarray(tensor).astype(np.float32)
    return tf.make_tensor_proto(values, dtype=tf.float32, shape=values.shape)


REWRITE = Rewrite(
    name="retype_bfloat16",
    does="computes in float32 what the TPU computed in bfloat16, for which GPUs have no kernels",
    run=retype_bfloat16,
    sees="flat",
)
