"""A restored session's variables -> constants of a second copy of its graph, in the same session.

Grappler folds and fuses what it sees to be constant, which a variable is not. The copy shares
inputs, tables and the variables that stay with the graph that was loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SCOPE = "frozen"
LIMIT_BYTES = 64 << 20  # of all constants; a session keeps a graph, and so each of them, four times


def freeze(session: Any, fetches: Sequence[str]) -> list[str]:
    """Copy what the fetches need, with constants in it.

    Variables become constants from the smallest on, up to `LIMIT_BYTES`, and only those that
    nothing but plain reads read: not those of look-ups, loops and branches.

    Args:
        session: holds the loaded graph, which is added to.
        fetches: tensors of it.

    Returns:
        The same tensors in the copy; `fetches` where nothing was to be made constant.
    """
    from batchinfer.tf1 import tf

    graph = session.graph
    nodes = [name.partition(":")[0] for name in fetches]
    needed = tf.graph_util.extract_sub_graph(graph.as_graph_def(), nodes)
    reads = _small(graph, _plain_reads(needed))
    if not reads:
        return list(fetches)
    values = session.run({name: name + ":0" for name in reads})
    for node in needed.node:
        if node.name in values:
            _become_constant(node, values[node.name], tf)
    shared = {
        tensor.name: tensor
        for node in needed.node
        if not node.input and node.op not in ("Const", "NoOp")
        for tensor in graph.get_operation_by_name(node.name).outputs
    }
    with graph.as_default():
        return [
            tensor.name for tensor in tf.import_graph_def(needed, shared, list(fetches), name=SCOPE)
        ]


def _plain_reads(graph_def: Any) -> list[str]:
    """The ReadVariableOps of variables that are read in no other way."""
    handles = {node.name for node in graph_def.node if node.op == "VarHandleOp"}
    reads: dict[str, str] = {}
    others: set[str] = set()
    for node in graph_def.node:
        for text in node.input:
            source = text.partition(":")[0]
            if source not in handles:
                continue
            if node.op == "ReadVariableOp" and len(node.input) == 1:
                reads[node.name] = source
            else:
                others.add(source)
    return [name for name, source in reads.items() if source not in others]


def _small(graph: Any, reads: Sequence[str]) -> list[str]:
    """Those that fit into `LIMIT_BYTES` together, the smallest first."""
    sizes = {}
    for name in reads:
        tensor = graph.get_operation_by_name(name).outputs[0]
        if tensor.shape.is_fully_defined() and tensor.dtype.is_floating:
            sizes[name] = tensor.shape.num_elements() * tensor.dtype.size
    kept, total = [], 0
    for size, name in sorted((size, name) for name, size in sizes.items()):
        total += size
        if total > LIMIT_BYTES:
            break
        kept.append(name)
    return kept


def _become_constant(node: Any, value: Any, tf: Any) -> None:
    dtype = node.attr["dtype"].type
    for name in list(node.attr):
        del node.attr[name]
    node.op = "Const"
    del node.input[:]
    node.attr["dtype"].type = dtype
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype, value.shape))
