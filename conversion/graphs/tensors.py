"""Which tensors are the model's inputs and outputs: named by flags or by a signature_def."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import AbstractSet, Any, Dict, Iterator, List, Mapping, Tuple

from batchinfer.errors import InputError, UnsupportedOpsError
from batchinfer.signature import Signature, TensorSpec
from batchinfer.tf1 import register_ops, tf
from conversion.graphs.candidates import candidates, flags_for
from conversion.graphs.cut_inputs import with_cut_inputs
from conversion.graphs.defaults import with_settled_defaults
from conversion.graphs.graph import Edge, close_names, every_node
from conversion.graphs.loop_shapes import settled_shapes
from conversion.graphs.placeholders import refuse_unfed
from conversion.graphs.sparse_inputs import Fed, Sparse, with_ragged_inputs
from conversion.proof.row_outputs import refuse_without_rows
from conversion.source import Source
from conversion.tf_internals import op_def

DEFAULT_SIGNATURE = "serving_default"
OF_LOADERS = "__saved_model_"  # signatures that name init and train ops
_RECORDED = "_output_shapes"
OUTPUT_SCOPE = "outputs/"  # where the outputs' nodes get names that no rewrite changes


@dataclass(frozen=True)
class Tensors:
    """Tensor names by the names that users know them by.

    Attributes:
        inputs, outputs: such as `image:0` by `image`.
        declared: shapes that the signature_def gives, for tensors whose rank TensorFlow cannot
            infer from the graph, as behind a lookup table.
        sparse: inputs that are SparseTensors, by name; they are not among `inputs`.
        ragged: what is fed in place of those, by name, once the graph was changed for it.
        signature: the signature_def that says all this; "" where flags do.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    declared: Mapping[str, Any] = field(default_factory=dict)
    sparse: Mapping[str, Sparse] = field(default_factory=dict)
    ragged: Mapping[str, Fed] = field(default_factory=dict)
    signature: str = ""


def choose_tensors(
    source: Source, inputs: Mapping[str, str], outputs: Mapping[str, str], signature: str
) -> Tensors:
    """What the flags name; without flags, what the signature_def names.

    Where there is no `serving_default`, the only signature that could be one is taken.

    Raises:
        InputError: only one side is named, no such signature, several to choose from, or a
            signature with outputs that are not dense.
    """
    if bool(inputs) != bool(outputs):
        raise InputError("expected both --input and --output, or neither; found one of them")
    if inputs:
        return Tensors(
            _with_index(inputs),
            _with_index(outputs),
            recorded_shapes(source.meta_graph.graph_def, _with_index(outputs)),
        )
    definitions = source.meta_graph.signature_def
    usable = usable_signatures(source.meta_graph)
    if signature == DEFAULT_SIGNATURE and signature not in definitions and len(usable) == 1:
        signature = usable[0]
    if signature not in definitions:
        raise InputError(_no_signature(source, signature, usable))
    definition = definitions[signature]
    dense = {name: info for name, info in definition.inputs.items() if _encoding(info) == "name"}
    problems = [
        f"input {name} is neither a dense nor a sparse tensor"
        for name, info in sorted(definition.inputs.items())
        if _encoding(info) not in ("name", "coo_sparse")
    ]
    problems += [
        f"output {name} is a SparseTensor, whose values do not come row by row; expected a dense "
        "one, as of tf.sparse.to_dense"
        for name, info in sorted(definition.outputs.items())
        if _encoding(info) != "name"
    ]
    if problems:
        raise InputError(f"signature {signature} of {source.path}:\n  " + "\n  ".join(problems))
    return Tensors(
        {name: str(info.name) for name, info in sorted(dense.items())},
        {name: str(info.name) for name, info in sorted(definition.outputs.items())},
        {name: tf.TensorShape(info.tensor_shape) for name, info in definition.outputs.items()},
        {
            name: Sparse.of(info)
            for name, info in sorted(definition.inputs.items())
            if name not in dense
        },
        signature=signature,
    )


def usable_signatures(meta_graph: Any) -> List[str]:
    """The signatures that take and give tensors; those of loaders and trainers do not."""
    return sorted(
        name
        for name, one in meta_graph.signature_def.items()
        if one.inputs and one.outputs and not name.startswith(OF_LOADERS)
    )


def _encoding(info: Any) -> str:
    return str(info.WhichOneof("encoding"))


def _with_index(tensors: Mapping[str, str]) -> Dict[str, str]:
    """`image` means `image:0`."""
    return {
        name: tensor if re.search(r":\d+$", tensor) else tensor + ":0"
        for name, tensor in tensors.items()
    }


def recorded_shapes(graph_def: Any, tensors: Mapping[str, str]) -> Dict[str, Any]:
    """The shapes that an exported MetaGraph keeps of what its Python code knew, by name.

    The number of rows is left open: a batch may be given another size than it was traced with.
    """
    nodes = {node.name: node for node in graph_def.node}
    found = {}
    for name, tensor in tensors.items():
        edge = Edge.parse(tensor)
        node = nodes.get(edge.node)
        shapes = node.attr[_RECORDED].list.shape if node and _RECORDED in node.attr else ()
        if edge.index < len(shapes) and shapes[edge.index].dim:
            shape = tf.TensorShape(shapes[edge.index])
            found[name] = tf.TensorShape([None]).concatenate(shape[1:])
    return found


def _no_signature(source: Source, signature: str, found: List[str]) -> str:
    if found:
        return (
            f"{source.path} has no signature {signature!r}; it has {', '.join(sorted(found))}. "
            "Name one with --signature."
        )
    inputs, outputs = candidates(source.meta_graph.graph_def)
    return (
        f"{source.path} has no signature_def, so its tensors have to be named, like\n"
        f"  {flags_for(inputs, outputs)}\n"
        "Look at all candidates with: python jobs/inspect.py " + source.path
    )


def imported(graph_def: Any, what: str) -> Any:
    """The graph as TensorFlow sees it, with dtypes and shapes inferred.

    Raises:
        UnsupportedOpsError: ops that TensorFlow does not know, all of them.
        InputError: TensorFlow cannot import it.
    """
    _require_known_ops(graph_def, what)
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except (ValueError, KeyError, TypeError, tf.errors.OpError) as error:
        raise InputError(f"TensorFlow {tf.__version__} cannot import {what}: {error}") from error
    return graph


def _require_known_ops(graph_def: Any, what: str) -> None:
    functions = {function.signature.name for function in graph_def.library.function}
    counts = Counter(node.op for _, node in every_node(graph_def) if node.op not in functions)
    register_ops(counts)
    unknown = [f"{op} x{counts[op]}" for op in sorted(counts) if op_def(op) is None]
    if unknown:
        raise UnsupportedOpsError(
            f"TensorFlow {tf.__version__} does not know {len(unknown)} op(s) of {what}: "
            f"{', '.join(unknown)}. Expected TensorFlow's own ops and those of tf.contrib in 1.15; "
            "the code of a custom op is not in an artifact. Export the model without it."
        )


def anchor(graph_def: Any, tensors: Tensors, what: str) -> Tuple[Any, Tensors]:
    """Put an Identity with a lasting name behind each output, and settle what is not fed.

    Surgery may replace the node that gives an output; the anchor only follows its edge. Of a
    variable, it reads the value.

    Returns:
        The graph, and the tensors with placeholders as inputs and the anchors as outputs.

    Raises:
        InputError: a tensor is not in the graph; all of them, each with the nearest names.
    """
    graph = imported(graph_def, what)
    problems = [
        f"--{flag} {name}={tensor}: no such tensor; {_near(graph, tensor)}"
        for flag, name, tensor in _named(tensors)
        if not _has(graph, tensor)
    ]
    if problems:
        raise InputError(
            f"{what}: {len(problems)} tensor(s) not found:\n  " + "\n  ".join(problems)
        )
    fed = [Edge.parse(tensor).node for flag, _, tensor in _named(tensors) if flag == "input"]
    settled = with_settled_defaults(graph_def, fed)
    made, ragged = with_ragged_inputs(settled, tensors.sparse)
    anchors, taken = {}, {op.name for op in graph.get_operations()}
    for name, tensor in tensors.outputs.items():
        node = made.node.add(name=_free(taken, OUTPUT_SCOPE + _safe(name)))
        taken.add(node.name)
        _hold(node, graph.get_tensor_by_name(tensor))
        anchors[name] = node.name + ":0"
    made, inputs = with_cut_inputs(made, graph, tensors.inputs)
    return made, replace(tensors, inputs=inputs, outputs=anchors, ragged=ragged)


def _named(tensors: Tensors) -> Iterator[Tuple[str, str, str]]:
    """Each tensor that is named: "input" or "output", the user's name for it, its own."""
    yield from (("input", *pair) for pair in tensors.inputs.items())
    yield from (("output", *pair) for pair in tensors.outputs.items())
    yield from (("input", name, one) for name, s in tensors.sparse.items() for one in s.tensors)


def _has(graph: Any, tensor: str) -> bool:
    try:
        graph.get_tensor_by_name(tensor)
    except (KeyError, ValueError):
        return False
    return True


def _near(graph: Any, tensor: str) -> str:
    return close_names(
        tensor, (found.name for op in graph.get_operations() for found in op.outputs)
    )


def _hold(node: Any, tensor: Any) -> None:
    """Let a node give what a tensor does; a resource variable's own tensor is only its handle."""
    node.input.append(str(Edge.parse(tensor.name)))
    if tensor.op.type == "VarHandleOp":
        node.op = "ReadVariableOp"
        node.attr["dtype"].type = tensor.op.get_attr("dtype").as_datatype_enum
    else:
        node.op = "Identity"
        node.attr["T"].type = tensor.dtype.base_dtype.as_datatype_enum


def _free(taken: AbstractSet[str], name: str) -> str:
    while name in taken:
        name += "_"
    return name


def _safe(name: str) -> str:
    """A name that a node may have."""
    return re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)


def read_signature(graph: Any, tensors: Tensors) -> Tuple[Signature, Tuple[str, ...]]:
    """Dtypes and shapes after surgery, and the names of inputs that no output needs.

    Raises:
        InputError: an output needs a placeholder that is no input, a tensor has no known rank, so
            that its rows cannot be told apart, an output has not one row per input row, or no
            input is left.
        BundleError: a dtype that bundles do not know.
    """
    present = {name: tensor for name, tensor in tensors.inputs.items() if _has(graph, tensor)}
    ragged = {name: fed for name, fed in tensors.ragged.items() if _has(graph, fed.rows)}
    unused = {*tensors.inputs, *tensors.ragged} - {*present, *ragged}
    inputs = [*_specs(graph, present, {}), *_ragged_specs(graph, ragged)]
    fed = [*present.values(), *[one.rows for one in ragged.values()]]
    lengths = [one.lengths for one in ragged.values() if _has(graph, one.lengths)]
    refuse_unfed(graph, [*fed, *lengths], tensors.outputs.values())
    refuse_without_rows(graph, fed, tensors.outputs)
    outputs = _specs(graph, tensors.outputs, tensors.declared)
    signature = Signature(tuple(sorted(inputs, key=lambda spec: spec.name)), outputs)
    return signature, tuple(sorted(unused))


def _ragged_specs(graph: Any, ragged: Mapping[str, Fed]) -> List[TensorSpec]:
    return [
        TensorSpec(name, fed.rows, _dtype_name(graph, fed.rows), fed.shape, fed.lengths)
        for name, fed in ragged.items()
    ]


def _dtype_name(graph: Any, tensor: str) -> str:
    return str(graph.get_tensor_by_name(tensor).dtype.base_dtype.name)


def _specs(
    graph: Any, tensors: Mapping[str, str], declared: Mapping[str, Any]
) -> Tuple[TensorSpec, ...]:
    found = {name: graph.get_tensor_by_name(tensor) for name, tensor in sorted(tensors.items())}
    shapes = {
        name: declared.get(name, tensor.shape) if tensor.shape.ndims is None else tensor.shape
        for name, tensor in found.items()
    }
    unknown = [name for name, shape in shapes.items() if shape.ndims is None]
    if unknown:
        settled = settled_shapes(graph, [tensors[name] for name in unknown])
        shapes.update({name: settled[tensors[name]] for name in unknown})
    for name, shape in shapes.items():
        if shape.ndims is None:
            raise InputError(
                f"tensor {name} has an unknown rank in the converted graph; expected rows along "
                "its first dimension. Name another tensor with --input or --output."
            )
    return tuple(
        TensorSpec(name, tensors[name], tensor.dtype.base_dtype.name, tuple(shapes[name].as_list()))
        for name, tensor in found.items()
    )
