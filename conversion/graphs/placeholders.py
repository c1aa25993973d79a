"""Placeholders that are no inputs of the bundle: refused by name, or fixed to a value for ever."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Dict, Iterable, List, Mapping, Set

import numpy as np

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.graphs.graph import close_names
from conversion.source import Source

BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def refuse_unfed(graph: Any, fed: Iterable[str], outputs: Iterable[str]) -> None:
    """Raise where an output needs a value that no row of data would bring.

    Args:
        graph: a tf.Graph, after surgery.
        fed, outputs: names of tensors.

    Raises:
        InputError: with every placeholder that is no input, its dtype and shape.
    """
    known = {graph.get_tensor_by_name(name).op for name in fed}
    unfed = sorted(
        f"{op.name}: {op.outputs[0].dtype.name}{_dims(op.outputs[0].shape)}"
        for op in _needed(graph.get_tensor_by_name(name).op for name in outputs)
        if op.type == "Placeholder" and op not in known
    )
    if unfed:
        name = unfed[0].partition(":")[0]
        raise InputError(
            f"the outputs need {len(unfed)} placeholder(s) that are no inputs:\n  "
            + "\n  ".join(unfed)
            + f"\nName what changes from row to row with --input, and give the rest a value for "
            f"ever with --fix, such as --fix {name}=VALUE."
        )


def _needed(ops: Iterable[Any]) -> Set[Any]:
    found: Set[Any] = set()
    waiting = list(ops)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def _dims(shape: Any) -> str:
    if shape.ndims is None:
        return " of unknown rank"
    return str(["?" if dim is None else dim for dim in shape.as_list()]).replace("'", "")


def with_fixed(source: Source, values: Mapping[str, str]) -> Source:
    """The source with constants in the place of placeholders, and without inputs of that name.

    Args:
        values: by the name of a signature's input, or of the placeholder's node or tensor.

    Raises:
        InputError: no such placeholder, or a value that it does not take; all of them.
    """
    if not values or source.meta_graph is None:
        return source
    meta_graph = tf.MetaGraphDef()
    meta_graph.CopyFrom(source.meta_graph)
    nodes = {
        node.name: node
        for node in meta_graph.graph_def.node
        if node.op in ("Placeholder", "PlaceholderWithDefault")
    }
    inputs = _signature_inputs(meta_graph)
    problems: List[str] = []
    for name, text in values.items():
        node = nodes.get(inputs.get(name, name).partition(":")[0])
        if node is None:
            problems.append(f"{name}: no such placeholder; {close_names(name, nodes)}")
            continue
        try:
            _become_constant(node, text)
        except ValueError as error:
            problems.append(f"{name}={text}: {error}")
        for definition in meta_graph.signature_def.values():
            for one in [key for key, info in definition.inputs.items() if _node(info) == node.name]:
                del definition.inputs[one]
    if problems:
        raise InputError(f"--fix, {source.path}:\n  " + "\n  ".join(problems))
    fixed = ", ".join(f"{name} is {text} for ever" for name, text in sorted(values.items()))
    return replace(source, meta_graph=meta_graph, graph_file=None, notes=(*source.notes, fixed))


def _signature_inputs(meta_graph: Any) -> Dict[str, str]:
    return {
        name: info.name
        for definition in meta_graph.signature_def.values()
        for name, info in definition.inputs.items()
    }


def _node(info: Any) -> str:
    return str(info.name).partition(":")[0]


def _become_constant(node: Any, text: str) -> None:
    """Turn a placeholder's node, in place, into the constant.

    Raises:
        ValueError: the text is no value of its dtype, or its shape is open.
    """
    dtype = tf.as_dtype(node.attr["dtype"].type)
    shape = tf.TensorShape(node.attr["shape"].shape)
    shape = tf.TensorShape([]) if shape.ndims is None else shape
    if not shape.is_fully_defined():
        raise ValueError(f"its shape {_dims(shape)} is open; expected a fixed one")
    value = np.full(shape.as_list(), _value(dtype, text))
    control = [edge for edge in node.input if edge.startswith("^")]
    node.op = "Const"
    del node.input[:]
    node.input.extend(control)
    node.attr.clear()
    node.attr["dtype"].type = dtype.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype, shape.as_list()))


def _value(dtype: Any, text: str) -> Any:
    if dtype == tf.bool:
        if text.lower() not in BOOLEANS:
            raise ValueError("expected true or false")
        return BOOLEANS[text.lower()]
    if dtype == tf.string:
        return text.encode()
    try:
        return int(text) if dtype.is_integer else float(text)
    except ValueError as error:
        raise ValueError(f"expected a value of dtype {dtype.name}") from error
