"""Folded values -> variables of a checkpoint, computed of those of another one."""

from __future__ import annotations

import os
from typing import Any, Iterator, List, Sequence, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView
from conversion.graphs.half import LARGEST
from conversion.optimize.optimise import Optimised
from conversion.optimize.precompute import Folded, folds, refuse_infinite
from conversion.weights.specs import Assignment, GraphVariable, Piece, VariableSpec
from conversion.weights.variable_copy import GROUP_BYTES, copy_variables, merge
from conversion.weights.variables import variable_name

# Without Grappler a value is what the graph's own nodes give, one after the other.
_PLAIN = tf.ConfigProto(device_count={"GPU": 0})
_PLAIN.graph_options.rewrite_options.disable_meta_optimizer = True


def write_variables(optimised: Optimised, plain: str, target: str) -> None:
    """Write the optimised model's checkpoint: what stays is copied, what is folded computed.

    Args:
        plain: checkpoint of the model as it was, under the same names.
        target: prefix of the checkpoint to write.

    Raises:
        ConversionError: weights that were folded are not finite.
        InputError: a variable cannot be read.
    """
    os.makedirs(os.path.dirname(target), exist_ok=True)
    written = []
    kept = [_as_it_is(one) for one in optimised.lowered.mapping.assignments]
    if kept:
        written.append(target + "_kept")
        copy_variables(plain, kept, written[-1])
    for index, group in enumerate(_groups(optimised.lowered.folded)):
        written.append(f"{target}_folded{index}")
        _write_group(group, optimised.before, plain, written[-1])
    merge(written, target)


def _as_it_is(one: Assignment) -> Assignment:
    """The same variable, read from the bundle's own checkpoint."""
    spec = one.variable.spec
    shape = tuple(one.to_json()["shape"])
    own = VariableSpec(one.target, spec.dtype, shape)
    return Assignment((Piece(own),), GraphVariable(own, one.target), one.target)


def _groups(values: Sequence[Folded]) -> Iterator[List[Folded]]:
    """As many at a time as fit into the memory that copying takes."""
    group: List[Folded] = []
    for value in values:
        if group and sum(one.size_bytes for one in group) + value.size_bytes > GROUP_BYTES:
            yield group
            group = []
        group.append(value)
    if group:
        yield group


def _write_group(values: Sequence[Folded], graph_def: Any, plain: str, target: str) -> None:
    with tf.Graph().as_default(), tf.Session(config=_PLAIN) as session:
        tensors, finite = compute(values, graph_def, plain)
        save = tf.raw_ops.SaveV2(
            prefix=target,
            tensor_names=[value.target for value in values],
            shape_and_slices=[""] * len(values),
            tensors=tensors,
        )
        _, found = session.run([save, finite])
    refuse_infinite(zip([value.target for value in values], found))


def compute(values: Sequence[Folded], graph_def: Any, checkpoint: str) -> Tuple[List[Any], Any]:
    """Tensors, in the current graph, of folded values, and whether all that were folded are finite.

    Args:
        graph_def: what `precompute` was given.
        checkpoint: of the variables as they were.
    """
    view = GraphView(graph_def, [value.edge.node for value in values])
    nodes = [view.nodes[name] for name in sorted(view.reachable())]
    reads = [node for node in nodes if node.op == "ReadVariableOp"]
    handles = [variable_name(view.nodes[Edge.parse(node.input[0]).node]) for node in reads]
    restored = tf.raw_ops.RestoreV2(
        prefix=checkpoint,
        tensor_names=handles,
        shape_and_slices=[""] * len(reads),
        dtypes=[tf.as_dtype(node.attr["dtype"].type) for node in reads],
    )
    kept = [node for node in nodes if node.op not in ("ReadVariableOp", "VarHandleOp")]
    part = tf.GraphDef(versions=graph_def.versions, node=kept)
    for node in part.node:
        node.attr.pop("_class", None)
    found = tf.import_graph_def(
        part,
        {node.name + ":0": value for node, value in zip(reads, restored)},
        [f"{value.edge.node}:{value.edge.index}" for value in values],
        name="",
    )
    finite = [tf.reduce_all(tf.is_finite(value)) for value in found]
    for index, value in enumerate(values):
        before = folds(GraphView(graph_def, [value.edge.node]).reachable())
        if not before:
            finite[index] = tf.constant(True)
        for name in before if value.dtype == "float16" else ():  # a cast would clamp them unseen
            tensor = tf.get_default_graph().get_tensor_by_name(name + ":0")
            finite[index] &= tf.reduce_all(tf.abs(tensor) <= LARGEST)
    return list(found), tf.stack(finite)
