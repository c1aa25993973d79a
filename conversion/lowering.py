"""A source -> a clean graph, its signature and its variables; in memory, nothing written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, FrozenSet, Mapping, Optional, Tuple

from batchinfer.errors import InputError, UnsupportedOpsError
from batchinfer.signature import Signature
from conversion import contents
from conversion.graphs import inventory, tables, tensors
from conversion.graphs.candidates import looks_like_training
from conversion.graphs.graph import Edge
from conversion.graphs.host_ops import HostOp, host_ops
from conversion.optimize.precompute import Folded
from conversion.source import KINDS, Source
from conversion.surgery import Applied, operate
from conversion.weights import matching, names, variables
from conversion.weights.checkpoint import read_specs, require_files


@dataclass(frozen=True)
class Lowered:
    """A graph that a CPU or GPU session runs.

    Attributes:
        checkpoint: prefix of the checkpoint that the variables are read from; "" without any.
        graph_def: after surgery, its variables under their new names.
        signature: inputs and outputs with dtypes and shapes as inferred after surgery.
        signature_def: name of the signature_def that was taken; "" where flags name the tensors.
        unused_inputs: inputs that no output needs; they are not in the signature.
        initialisers: names of the nodes that fill lookup tables.
        assets: files that the graph reads.
        mapping: where each variable comes from, and what was dropped.
        applied: the rewrites in their order, with counts.
        host_ops: what a GPU session leaves to the CPU.
        notes: what the user should know, though it stands in nobody's way.
        num_nodes_before: nodes of the artifact's main graph and functions.
        folded: variables that are computed of others, which they take the place of.
    """

    checkpoint: str
    graph_def: Any
    signature: Signature
    signature_def: str
    unused_inputs: Tuple[str, ...]
    initialisers: Tuple[str, ...]
    assets: Tuple[tables.Asset, ...]
    mapping: names.Mapping
    applied: Tuple[Applied, ...]
    host_ops: Tuple[HostOp, ...]
    notes: Tuple[str, ...]
    num_nodes_before: int
    folded: Tuple[Folded, ...] = ()


@dataclass(frozen=True)
class Request:
    """How the user names tensors and variables.

    Attributes:
        inputs: tensor by input name; empty takes the signature_def.
        outputs: tensor by output name; empty takes the signature_def.
        signature: name of the signature_def.
        rules: the user's renames and drops.
        precision: what bfloat16 becomes.
        weights: "raw", "ema", or None to refuse a checkpoint that has both.
        target: where the graph shall run, "gpu" or "cpu".
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    signature: str = "serving_default"
    rules: names.Rules = names.NO_RULES
    precision: str = "float32"
    weights: Optional[str] = None
    target: str = "gpu"


def lower(source: Source, request: Request) -> Lowered:
    """Surgery, then the checks that nothing is left over on either side.

    Raises:
        InputError: no graph, no checkpoint, or tensors that are not there.
        UnsupportedOpsError: ops that a CPU or GPU cannot run, all of them.
        MappingError: variables that do not match one to one, all of them.
    """
    require_whole(source, request)
    original = source.meta_graph.graph_def
    chosen = tensors.choose_tensors(source, request.inputs, request.outputs, request.signature)
    graph_def, chosen = tensors.anchor(original, chosen, source.path)
    anchors = [Edge.parse(tensor).node for tensor in chosen.outputs.values()]
    graph_def = tables.with_initialisers(source, graph_def)
    initialisers = tables.table_initialisers(graph_def, anchors)
    graph_def, applied = operate(
        graph_def, anchors + list(initialisers), request.precision, request.target
    )
    try:
        inventory.refuse(graph_def, request.target)
    except UnsupportedOpsError as error:
        raise UnsupportedOpsError(contents.with_way_out(source, str(error))) from error
    found = variables_of(source, graph_def)
    checkpoint = require_checkpoint(source, bool(found))
    mapping = matching.assign(
        read_specs(checkpoint) if checkpoint else (),
        found,
        request.rules,
        request.weights,
        source.left_out,
        read_by_signatures(source),
    )
    targets = {one.variable.spec.name: one.target for one in mapping.assignments}
    graph_def = variables.rename_variables(graph_def, targets)
    signature, unused = tensors.read_signature(tensors.imported(graph_def, source.path), chosen)
    return Lowered(
        checkpoint,
        graph_def,
        signature,
        chosen.signature,
        unused,
        initialisers,
        tables.assets(source, graph_def),
        mapping,
        applied,
        host_ops(graph_def, request.target),
        source.notes + _notes(mapping),
        num_nodes_before=num_nodes(original),
    )


def _notes(mapping: names.Mapping) -> Tuple[str, ...]:
    """Batch norm of a TPU in training mode is plain moments, which no op gives away."""
    dropped = sorted(
        drop.name
        for drop in mapping.drops
        if re.search(r"moving_(mean|variance)$", drop.name)
        and not drop.reason.startswith(matching.REPLACED)
    )
    if not dropped:
        return ()
    return (
        f"the graph does not read {len(dropped)} moving statistic(s) of batch norm that the "
        f"checkpoint has, such as {dropped[0]}: if it normalises with the statistics of its "
        "batch, it is a training graph, and predicts something else",
    )


def variables_of(source: Source, graph_def: Any) -> Tuple[names.GraphVariable, ...]:
    """The variables of a lowered graph, with the checkpoint names that the source knows."""
    keys = {**variables.saver_keys(source.meta_graph), **source.keys}
    parts = variables.saver_parts(source.meta_graph)
    return variables.graph_variables(
        graph_def, keys, {name: part for name, part in parts.items() if name not in source.keys}
    )


def read_by_signatures(source: Source) -> FrozenSet[str]:
    """Checkpoint names of what any signature of a SavedModel reads; of other kinds nothing.

    A SavedModel's checkpoint serves all of its signatures, and one of them is converted.
    """
    if source.kind not in ("saved_model", "tpu_saved_model"):
        return frozenset()
    keys = {**variables.saver_keys(source.meta_graph), **source.keys}
    read = variables.signature_variables(source.meta_graph)
    return frozenset(keys.get(name, name) for name in read)


def require_whole(source: Source, request: Request) -> None:
    """Refuse a source without a graph for prediction, or with a part of a checkpoint.

    Raises:
        InputError: with what is missing.
    """
    if source.meta_graph is None:
        why = (
            f"{source.path} is a {KINDS[source.kind]}, which says nothing about the graph; "
            "expected a SavedModel folder, a PREDICT MetaGraph (.meta) with --checkpoint, or "
            "model code."
        )
        raise InputError(contents.refusal(source, why))
    bare = not request.inputs and not source.meta_graph.signature_def
    if bare and looks_like_training(source.meta_graph.graph_def):
        why = (
            f"{source.path} is a training graph: it holds an optimizer or a training loop, and no "
            "signature_def. Dropout and the statistics of batches are in it, so it predicts "
            "nothing. (If it does hold a predictor, name its tensors with --input and --output.)"
        )
        raise InputError(contents.refusal(source, why))
    if source.checkpoint:
        require_files(source.checkpoint)


def require_checkpoint(source: Source, has_variables: bool) -> str:
    """The checkpoint's prefix; "" where there is none and none is needed.

    Args:
        has_variables: the outputs read variables.

    Raises:
        InputError: there are variables and no checkpoint.
    """
    if source.checkpoint is None and has_variables:
        raise InputError(
            f"{source.path} has no checkpoint in it or beside it; name one with --checkpoint "
            "PREFIX_OR_FOLDER"
        )
    return source.checkpoint or ""


def num_nodes(graph_def: Any) -> int:
    """Nodes of the main graph and of the library's functions."""
    return len(graph_def.node) + sum(len(one.node_def) for one in graph_def.library.function)
