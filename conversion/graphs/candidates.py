"""A graph without a signature -> tensors that look like its inputs and outputs."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Tuple

from conversion.graphs.graph import Edge, GraphView

LAST_OPS = ("Softmax", "Sigmoid", "ArgMax")  # what predictors outside a TPU cluster often end in
INFEEDS = ("InfeedDequeue", "InfeedDequeueTuple")
TRAINING_OPS = ("Infeed", "Outfeed", "ResourceApply", "ApplyAdam", "ApplyMomentum", "ApplyGradient")


def looks_like_training(graph_def: Any) -> bool:
    """Whether an optimizer or a TPU training loop is in the graph."""
    return any(node.op.startswith(TRAINING_OPS) for node in graph_def.node)


def flags_for(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """`--input a=a:0 --output b=b:0`."""
    pairs = [
        f"--{flag} " + (",".join(f"{name}={tensor}" for name, tensor in tensors.items()) or "?")
        for flag, tensors in (("input", inputs), ("output", outputs))
    ]
    return " ".join(pairs)


def candidates(graph_def: Any) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Likely inputs (placeholders) and outputs (what leaves a TPU cluster) of a bare graph."""
    view = GraphView(graph_def)
    consumed = view.data_consumed()
    inputs = [f"{node.name}:0" for node in graph_def.node if node.op == "Placeholder"]
    inputs += [
        f"{node.name}:{index}"
        for node in graph_def.node
        if node.op in INFEEDS
        for index in range(len(node.attr["dtypes"].list.type) or 1)
    ]
    leaving = [
        f"{node.name}:0"
        for node in graph_def.node
        if node.op == "Identity"
        and view.nodes[Edge.parse(node.input[0]).node].op == "TPUReplicatedOutput"
    ]
    outputs = _joined(view, leaving) or [
        f"{node.name}:0"
        for node in graph_def.node
        if node.name not in consumed and node.op in LAST_OPS
    ]
    return _named(inputs), _named(outputs)


def _joined(view: GraphView, leaving: List[str]) -> List[str]:
    """What leaves several cores, as the batch that it is put together to where that is done."""
    joints: Dict[str, List[str]] = {}
    for node in view.graph_def.node:
        for text in node.input if node.op == "ConcatV2" else ():
            joints.setdefault(f"{Edge.parse(text).node}:0", []).append(f"{node.name}:0")
    return list(dict.fromkeys(end for one in leaving for end in joints.get(one, [one])))


def _named(tensors: List[str]) -> Dict[str, str]:
    """A short name for each tensor: the node's last part, the whole where that is not unique."""
    short = [re.sub(r"(_shard_0)?:0$", "", tensor.rpartition("/")[2]) for tensor in tensors]
    whole = [re.sub(r":0$", "", tensor) for tensor in tensors]
    return {
        re.sub("[/:]", "_", last if short.count(last) == 1 else name): tensor
        for tensor, last, name in zip(tensors, short, whole)
    }
