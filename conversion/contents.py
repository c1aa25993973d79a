"""A source that is no predictor -> what is inside it, and the command that would convert it."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graph import every_node
from conversion.graphs.inventory import EMBEDDING, TRAINING
from conversion.source import Source
from conversion.tf_internals import attr_value
from conversion.weights import matching, names
from conversion.weights.checkpoint import read_specs

INFEED = ("InfeedDequeueTuple", "InfeedDequeue")
OUTFEED = ("OutfeedEnqueueTuple", "OutfeedEnqueue")
ACTIVATIONS = ("TPUEmbeddingActivations", "RecvTPUEmbeddingActivations")
CONFIGURE = "ConfigureTPUEmbedding"
SHOWN = 12  # tensors of the infeed, on one screen


@dataclass(frozen=True)
class Contents:
    """What a training graph or a bare checkpoint holds.

    Attributes:
        fed: `dtype[shape]` of each tensor that the infeed gives to one core, in its order.
        fetched: the same for what the outfeed takes out of one core.
        num_cores: cores that the graph was written for; 0 when it does not say.
        embedding_tables: activations that come from TPU embedding tables.
        model_variables: variables of the checkpoint that no default rule drops.
        model_bytes: size of those whose shape is known, in bytes.
        others: how many checkpoint entries there are of each other kind, by what they are.
    """

    fed: Tuple[str, ...] = ()
    fetched: Tuple[str, ...] = ()
    num_cores: int = 0
    embedding_tables: int = 0
    model_variables: int = 0
    model_bytes: int = 0
    others: Tuple[Tuple[str, int], ...] = ()


def read_contents(source: Source) -> Contents:
    """Look at the graph, if there is one, and at the checkpoint's index, if there is one.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    nodes: Dict[str, List[Any]] = {}
    for _, node in every_node(source.meta_graph.graph_def if source.meta_graph else tf.GraphDef()):
        nodes.setdefault(node.op, []).append(node)
    specs = read_specs(source.checkpoint) if source.checkpoint else ()
    mapping, _ = matching.match(specs, (), names.NO_RULES)
    dropped = {drop.name for drop in mapping.drops}
    replicated = nodes.get("TPUReplicateMetadata", ())
    model = [spec for spec in specs if spec.name not in dropped]
    return Contents(
        fed=_tensors(nodes, INFEED),
        fetched=_tensors(nodes, OUTFEED),
        num_cores=max([0, *(attr_value(node, "num_replicas").i for node in replicated)]),
        embedding_tables=sum(len(nodes.get(op, ())) for op in ACTIVATIONS),
        model_variables=len(model),
        model_bytes=sum(_size(spec) for spec in model),
        others=tuple(sorted(Counter(drop.reason for drop in mapping.drops).items())),
    )


def _tensors(nodes: Dict[str, List[Any]], ops: Iterable[str]) -> Tuple[str, ...]:
    """Of the node with the most tensors: the loop's, beside those of evaluation or warm-up."""
    found = [_tensors_of(node) for op in ops for node in nodes.get(op, ())]
    return max(found, key=len, default=())


def _tensors_of(node: Any) -> Tuple[str, ...]:
    types = attr_value(node, "dtypes").list.type or [attr_value(node, "dtype").type]
    shapes = attr_value(node, "shapes").list.shape
    shapes = shapes or [attr_value(node, "shape").shape] * len(types)
    return tuple(f"{tf.as_dtype(kind).name}[{_dims(shape)}]" for kind, shape in zip(types, shapes))


def _dims(shape: Any) -> str:
    return ", ".join("?" if dim.size < 0 else str(dim.size) for dim in shape.dim)


def _size(spec: names.VariableSpec) -> int:
    size = tf.as_dtype(spec.dtype).size if spec.dtype != "string" else 0
    for dim in spec.shape or ():
        size *= dim or 0
    return size


def as_lines(contents: Contents) -> List[str]:
    """What is inside, for a person."""
    lines = []
    if contents.num_cores:
        lines.append(f"cores               {contents.num_cores}")
    if contents.fed:
        lines.append("fed to each core    " + _some(contents.fed))
    if contents.fetched:
        lines.append("taken from it       " + _some(contents.fetched))
    if contents.embedding_tables:
        lines.append(f"TPU embedding       {contents.embedding_tables} activations of tables")
    if contents.model_variables:
        size = f"{contents.model_bytes / 1e6:,.1f} MB"
        lines.append(f"model variables     {contents.model_variables} ({size})")
    lines += [f"{'not the model':<20}{count} x {what}" for what, count in contents.others]
    return lines


def _some(texts: Tuple[str, ...]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def what_would_work(source: Source, contents: Contents) -> str:
    """The command that converts this checkpoint, and the features file that it needs."""
    checkpoint = source.checkpoint or "CHECKPOINT"
    command = (
        f"python jobs/convert.py {shlex.quote(checkpoint)} --model-fn PACKAGE.MODULE:model_fn "
        "--params params.yaml --features features.yaml --out BUNDLE"
    )
    lines = [
        "What works is the model_fn that wrote the checkpoint, built again on one device:",
        "  " + command,
    ]
    features = _features(contents)
    if features:
        lines += [
            "with a features.yaml that names what the infeed gives (features in the order of "
            "their names, then labels):",
            "  features:",
            *(f"    {line}" for line in features),
        ]
    return "\n".join(lines)


def _features(contents: Contents) -> List[str]:
    """What the infeed gives, the first dimension open: that is a core's share of the batch."""
    lines = []
    for index, text in enumerate(contents.fed[:SHOWN]):
        dtype, _, dims = text.partition("[")
        rest = dims.rstrip("]").split(", ")[1:]
        lines.append(f"NAME_{index}: {dtype}[{', '.join(['?'] + rest)}]")
    return lines


def refusal(source: Source, why: str, contents: Optional[Contents] = None) -> str:
    """Why a source cannot be converted, what is inside, and what would work, in one message."""
    contents = contents or read_contents(source)
    inside = as_lines(contents)
    parts = [why]
    if inside:
        parts.append("What is inside:\n" + "\n".join("  " + line for line in inside))
    parts.append(what_would_work(source, contents))
    return "\n".join(parts)


def with_way_out(source: Source, problem: str) -> str:
    """A refusal of ops; where only the model's code helps, with what is inside and the command."""
    if source.code or not any(why in problem for why in (TRAINING, EMBEDDING)):
        return problem
    return refusal(source, problem)
