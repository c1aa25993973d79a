"""A source -> what it holds and what conversion would do with it; reads only."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.signature import Signature
from batchinfer.tf1 import tf
from conversion import contents
from conversion.convert_command import command_for
from conversion.graphs import inventory, tables, tensors
from conversion.graphs.candidates import candidates
from conversion.graphs.graph import Edge, GraphView, every_node
from conversion.lowering import (
    Request,
    read_by_signatures,
    require_checkpoint,
    require_whole,
    variables_of,
)
from conversion.source import KINDS, Source, tags_of
from conversion.surgery import REWRITES, Applied, operate, sweep
from conversion.weights import matching, names
from conversion.weights.checkpoint import read_specs, require_files
from conversion.weights.specs import Assignment

KEPT = "kept"
NOT_NEEDED = "not needed by the outputs"
EVERYWHERE = ("sweep", "scrub")  # rewrites that say nothing about a graph


@dataclass(frozen=True)
class OpCount:
    """An op of the artifact.

    Attributes:
        op: its name.
        count: nodes of it, in the main graph and in functions.
        needed: how many of them the outputs need.
        fate: what conversion does with those.
    """

    op: str
    count: int
    needed: int
    fate: str


@dataclass(frozen=True)
class VariableFate:
    """A variable of the checkpoint, and what conversion does with it."""

    spec: names.VariableSpec
    fate: str


@dataclass(frozen=True)
class Inspection:
    """Everything that `jobs/inspect.py` shows.

    Attributes:
        signatures: by name: inputs and outputs, by name: `tensor  dtype[shape]`.
        candidates: the same for a graph without signatures: what looks like one.
        bundle: inputs and outputs of the bundle, their shapes as they are after surgery.
        rewrites: places that each rewrite changed, where it changed any; `sweep` and `scrub`, which
            every graph goes through, are left out.
        command: the conversion that works, or that would if the problems were solved.
        problems: what stands in the way, as `convert` would say it.
        weights: which values the bundle would have, as its manifest says it.
    """

    source: Source
    num_nodes: int
    num_functions: int
    signatures: Mapping[str, Mapping[str, Mapping[str, str]]]
    candidates: Mapping[str, Mapping[str, str]]
    bundle: Mapping[str, Mapping[str, str]]
    ops: Tuple[OpCount, ...]
    variables: Tuple[VariableFate, ...]
    command: str
    problems: Tuple[str, ...]
    rewrites: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        return {
            "source": self.source.path,
            "kind": self.source.kind,
            "tags": list(tags_of(self.source)),
            "checkpoint": self.source.checkpoint,
            "notes": list(self.source.notes),
            "nodes": self.num_nodes,
            "functions": self.num_functions,
            "signatures": self.signatures,
            "candidates": self.candidates,
            "bundle": self.bundle,
            "rewrites": self.rewrites,
            "ops": [vars(one) for one in self.ops],
            "variables": [{**one.spec.to_json(), "fate": one.fate} for one in self.variables],
            "weights": self.weights,
            "convert": self.command,
            "problems": list(self.problems),
        }


def inspect(
    source: Source,
    request: Request,
    rules_path: Optional[str] = None,
    fixed: Optional[Mapping[str, str]] = None,
) -> Inspection:
    """Go through the conversion without writing, and note where it would stop.

    Args:
        rules_path, fixed: where the rules came from, and what was fixed, for the command.
    """
    problems: List[str] = []
    for check in (_require_files, require_whole):
        try:
            check(source, request)
        except InputError as error:
            problems += [str(error)] if str(error) not in problems else []
    if source.meta_graph is None:
        fates, _ = _variable_fates(source, (), request, problems)
        return Inspection(source, 0, 0, {}, {}, {}, (), fates, "", tuple(problems))
    graph_def = source.meta_graph.graph_def
    chosen = _chosen(source, request, problems)
    graph = _imported(source, problems)
    trial = _operated(source, request, chosen, problems)
    try:
        require_checkpoint(source, bool(trial.variables) or not trial.bundle)
    except InputError as error:
        problems.append(str(error))
    fates, weights = _variable_fates(source, trial.variables, request, problems)
    return Inspection(
        source=source,
        num_nodes=sum(1 for _ in every_node(graph_def)),
        num_functions=len(graph_def.library.function),
        signatures=_signatures(source),
        candidates=_candidates(source, graph),
        bundle=trial.bundle,
        ops=trial.ops,
        variables=fates,
        rewrites=trial.rewrites,
        command=command_for(source, request, chosen, rules_path, fixed or {}),
        problems=tuple(problems),
        weights=weights,
    )


def _require_files(source: Source, request: Request) -> None:
    if source.checkpoint:
        require_files(source.checkpoint)


@dataclass(frozen=True)
class _Trial:
    """What surgery on the artifact gave."""

    ops: Tuple[OpCount, ...]
    variables: Tuple[names.GraphVariable, ...] = ()
    bundle: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rewrites: Mapping[str, int] = field(default_factory=dict)


def _imported(source: Source, problems: List[str]) -> Optional[Any]:
    try:
        return tensors.imported(source.meta_graph.graph_def, source.path)
    except InputError as error:
        problems.append(str(error))
        return None


def _chosen(source: Source, request: Request, problems: List[str]) -> tensors.Tensors:
    """What convert would take; for a graph without signatures the candidates."""
    try:
        return tensors.choose_tensors(source, request.inputs, request.outputs, request.signature)
    except InputError as error:
        inputs, outputs = candidates(source.meta_graph.graph_def)
        if source.meta_graph.signature_def or not (inputs and outputs):
            problems.append(str(error))
            return tensors.Tensors({}, {})
        return tensors.Tensors(inputs, outputs)


def _operated(
    source: Source, request: Request, chosen: tensors.Tensors, problems: List[str]
) -> _Trial:
    """The conversion of the graph, and what was found out as far as it goes."""
    original = source.meta_graph.graph_def
    trial = _Trial(_census(original, original, ()))
    try:
        anchored, chosen = tensors.anchor(original, chosen, source.path)
        roots = [Edge.parse(tensor).node for tensor in chosen.outputs.values()]
        anchored = tables.with_initialisers(source, anchored)
        roots += tables.table_initialisers(anchored, roots)
        needed = sweep.sweep(GraphView(anchored, roots))[0] if roots else anchored
        trial = replace(trial, ops=_census(original, needed, ()))
        roots = roots or [node.name for node in anchored.node]
        cleaned, applied = operate(anchored, roots, request.precision, request.target)
        refused = inventory.refusals(cleaned, request.target)
        trial = replace(trial, ops=_census(original, needed, refused), rewrites=_counts(applied))
        if refused:
            problems.append(contents.with_way_out(source, inventory.message(refused)))
        if refused or not chosen.outputs:
            return trial
        trial = replace(trial, variables=variables_of(source, cleaned))
        signature = tensors.read_signature(tensors.imported(cleaned, source.path), chosen)[0]
        return replace(trial, bundle=_sides(signature))
    except InputError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return trial


def _counts(applied: Iterable[Applied]) -> Dict[str, int]:
    """Places changed, of the rewrites that say something about this graph."""
    return {
        one.rewrite: one.count for one in applied if one.count and one.rewrite not in EVERYWHERE
    }


def _sides(signature: Signature) -> Dict[str, Dict[str, str]]:
    return {
        "inputs": {spec.name: str(spec).partition(": ")[2] for spec in signature.inputs},
        "outputs": {spec.name: str(spec).partition(": ")[2] for spec in signature.outputs},
    }


def _census(
    original: Any, needed: Any, refused: Tuple[inventory.Refusal, ...]
) -> Tuple[OpCount, ...]:
    counts = Counter(node.op for _, node in every_node(original))
    reached = Counter(node.op for _, node in every_node(needed))
    fates = {op: fate for rewrite in REWRITES for op, fate in rewrite.fates.items()}
    fates.update({one.op: f"REFUSED: {one.why}" for one in refused})
    return tuple(
        OpCount(op, counts[op], reached[op], fates.get(op, KEPT) if reached[op] else NOT_NEEDED)
        for op in sorted(counts)
    )


def _fate(readers: List[Assignment]) -> str:
    """What becomes of a variable that these read; several cut it into slices."""
    if len(readers) == 1:
        return readers[0].fate(KEPT)
    more = ", ..." if len(readers) > 3 else ""
    return f"cut into {', '.join(one.target for one in readers[:3])}{more}"


def _variable_fates(
    source: Source,
    found: Tuple[names.GraphVariable, ...],
    request: Request,
    problems: List[str],
) -> Tuple[Tuple[VariableFate, ...], Dict[str, Any]]:
    """What becomes of each of the checkpoint's variables, and which values the bundle has."""
    if source.checkpoint is None:
        return (), {}
    specs = read_specs(source.checkpoint)
    elsewhere = read_by_signatures(source)
    mapping, problem = matching.match(
        specs, found, request.rules, request.weights, source.left_out, elsewhere
    )
    if problem and found:
        problems.append(problem)
    fates = {drop.name: f"dropped: {drop.reason}" for drop in mapping.drops}
    readers: Dict[str, List[Assignment]] = {}
    for one in mapping.assignments:
        for piece in one.pieces:
            readers.setdefault(piece.spec.name, []).append(one)
    fates.update({name: _fate(read_by) for name, read_by in readers.items()})
    unmatched = "no rule for it" if found else "model variable"
    listed = tuple(VariableFate(spec, fates.get(spec.name, unmatched)) for spec in specs)
    return listed, mapping.weights.to_json() if found else {}


def _signatures(source: Source) -> Dict[str, Dict[str, Dict[str, str]]]:
    return {
        name: {
            "inputs": {key: _described(info) for key, info in sorted(one.inputs.items())},
            "outputs": {key: _described(info) for key, info in sorted(one.outputs.items())},
        }
        for name, one in sorted(source.meta_graph.signature_def.items())
        if not name.startswith(tensors.OF_LOADERS)
    }


def _described(info: Any) -> str:
    """`tensor  dtype[shape]` from a TensorInfo."""
    shape = _dims(tf.TensorShape(info.tensor_shape))
    sparse = info.WhichOneof("encoding") == "coo_sparse"
    name = "sparse " + info.coo_sparse.values_tensor_name if sparse else info.name
    return f"{name}  {tf.as_dtype(info.dtype).name}{shape}"


def _candidates(source: Source, graph: Any) -> Dict[str, Dict[str, str]]:
    if source.meta_graph.signature_def or graph is None:
        return {}
    inputs, outputs = candidates(source.meta_graph.graph_def)
    return {
        kind: {name: _tensor(graph, tensor) for name, tensor in named.items()}
        for kind, named in (("inputs", inputs), ("outputs", outputs))
    }


def _tensor(graph: Any, name: str) -> str:
    tensor = graph.get_tensor_by_name(name)
    return f"{name}  {tensor.dtype.name}{_dims(tensor.shape)}"


def _dims(shape: Any) -> str:
    if shape.ndims is None:
        return " of unknown rank"
    dims = shape.as_list()
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def kind_of(source: Source) -> str:
    return KINDS[source.kind]
