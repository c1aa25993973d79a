"""A TPU graph with as little changed as a CPU session needs to run it; for references only.

Nothing here is shared with `conversion.surgery`, so that a fault of the one is not a fault of
the other: no node is deleted or moved, no function inlined, no tensor retyped. An op that only a
TPU has becomes the op of TensorFlow that does the same, under the same name.
"""

from __future__ import annotations

from typing import Any, Dict, Mapping

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs.graph import copied, every_node

BOOKKEEPING = (
    "TPUReplicateMetadata",
    "TPUCompilationResult",
    "TPUOrdinalSelector",
    "ConfigureDistributedTPU",
    "_ConfigureDistributedTPU",
    "ShutdownDistributedTPU",
    "_ShutdownDistributedTPU",
)
ATTRS = ("_tpu", "_xla", "_Xla", "_output_shapes", "_class")
# TF 1.15's own kernel ignores `dilations` without an error (2.3 off on a scale of 4); XLA's, which
# TPUs compile too, does not. XLA's also run XlaEinsum, XlaDot, XlaPad and the like as they are.
XLA_CPU = "/device:XLA_CPU:0"
RESOURCE = tf.resource.as_datatype_enum
BFLOAT16, FLOAT32 = tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum
LOWERED = tf.AttrValue(b=True)  # into the graph, whose placer knows XLA's kernels for bfloat16


def bare(graph_def: Any) -> Any:
    """Put TensorFlow's own ops in the place of a TPU's, in the graph and its functions.

    What has no such counterpart stays, and fails in the session.
    """
    made = copied(graph_def)
    replicas = [
        node.attr["num_replicas"].i
        for _, node in every_node(graph_def)
        if node.op == "TPUReplicateMetadata"
    ]
    alone = max(replicas, default=1) == 1
    _bare_nodes(made.node, alone)
    for function in made.library.function:
        renamed = _bare_nodes(function.node_def, alone)
        for node in function.node_def:
            node.input[:] = [_renamed(text, renamed) for text in node.input]
        for output, text in list(function.ret.items()):
            function.ret[output] = _renamed(text, renamed)
        _drop(function.attr)
    return made


def _bare_nodes(nodes: Any, alone: bool) -> Dict[str, str]:
    """Change nodes in place; the new name of the output argument, by node.

    Args:
        alone: there is one replica, so that a sum over replicas is its own value.
    """
    outputs: Dict[str, str] = {}
    for node in nodes:
        node.device = ""
        _drop(node.attr)
        output = _bare_node(node, alone)
        if output:
            outputs[node.name] = output
    return outputs


def _bare_node(node: Any, alone: bool) -> str:
    """Change one node in place; the name of its output argument, "" when it is what it was."""
    attr = node.attr
    if node.op in BOOKKEEPING:
        return _become(node, "NoOp", 0, {})
    if node.op in ("TPUReplicatedInput", "TPUReplicatedOutput"):
        # With more than one replica they stay: `conversion.replica_runs` feeds them.
        one = attr["N" if node.op == "TPUReplicatedInput" else "num_replicas"].i == 1
        one = one or (attr["T"].type == RESOURCE and len(set(node.input)) == 1)
        return _become(node, "Identity", 1, {"T": attr["T"]}) if one else ""
    if node.op in ("TPUPartitionedCall", "BatchFunction"):
        types = list(attr["Tin"].list.type) + list(attr["Tcaptured"].list.type)
        tin = tf.AttrValue(list=tf.AttrValue.ListValue(type=types))
        attrs = {"Tin": tin, "Tout": attr["Tout"], "f": attr["f"]}
        return _become(node, "StatefulPartitionedCall", len(types), attrs)
    if node.op == "XlaIf":
        names = ("Tcond", "Tin", "Tout", "then_branch", "else_branch")
        attrs = {name: attr[name] for name in names}
        attrs["_lower_using_switch_merge"] = LOWERED
        return _become(node, "If", 1 + len(attr["Tin"].list.type), attrs)
    if node.op == "XlaWhile":
        attrs = {name: attr[name] for name in ("T", "cond", "body")}
        attrs["_lower_using_switch_merge"] = LOWERED
        return _become(node, "While", len(attr["T"].list.type), attrs)
    if node.op == "CrossReplicaSum" and alone:
        return _become(node, "Identity", 1, {"T": attr["T"]})
    if node.op.startswith("DepthwiseConv2d") and "dilations" in attr:
        node.device = XLA_CPU if max(attr["dilations"].list.i) > 1 else ""
    return ""


def _become(node: Any, op: str, num_inputs: int, attrs: Mapping[str, Any]) -> str:
    """Change op and attributes; the first data inputs and all control inputs stay."""
    data = [text for text in node.input if not text.startswith("^")]
    control = [text for text in node.input if text.startswith("^")]
    kept = {}
    for name, value in attrs.items():
        kept[name] = tf.AttrValue()
        kept[name].CopyFrom(value)
    node.op = op
    node.input[:] = data[:num_inputs] + control
    for name in list(node.attr):
        del node.attr[name]
    for name, value in kept.items():
        node.attr[name].CopyFrom(value)
    return "output"


def _drop(attrs: Any) -> None:
    for name in [name for name in attrs if name.startswith(ATTRS)]:
        del attrs[name]


def _renamed(text: str, outputs: Mapping[str, str]) -> str:
    """A function's edge `node:argument:index` with the argument's name in the new op."""
    name, _, rest = text.partition(":")
    if name not in outputs or not rest:
        return text
    return f"{name}:{outputs[name]}:{rest.partition(':')[2] or 0}"


def widened(graph_def: Any) -> Any:
    """The same graph in float32 wherever it says bfloat16; constants keep their rounding."""
    made = copied(graph_def)
    for _, node in every_node(made):
        for attr in node.attr.values():
            _widen(attr)
    for function in made.library.function:
        for argument in [*function.signature.input_arg, *function.signature.output_arg]:
            argument.type = _wider(argument.type)
        for attr in function.attr.values():
            _widen(attr)
    return made


def _widen(attr: Any) -> None:
    """In place: a type, a list of types, a constant, or the attributes of a named function."""
    if attr.HasField("tensor") and attr.tensor.dtype == BFLOAT16:
        values = tf.make_ndarray(attr.tensor).astype(np.float32)
        attr.tensor.CopyFrom(tf.make_tensor_proto(values, tf.float32, values.shape))
    elif attr.HasField("type"):
        attr.type = _wider(attr.type)
    elif attr.HasField("list"):
        attr.list.type[:] = [_wider(one) for one in attr.list.type]
    for function in [attr.func, *attr.list.func] if attr.WhichOneof("value") else ():
        if function.name:
            for inner in function.attr.values():
                _widen(inner)


def _wider(dtype: int) -> int:
    """A type or, 100 higher, a reference to it."""
    reference, plain = divmod(dtype, 100)
    return reference * 100 + (FLOAT32 if plain == BFLOAT16 else plain)
