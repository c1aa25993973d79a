"""A graph without a signature -> tensors that look like its inputs and outputs."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Tuple

from conversion.graph import Edge, GraphView

LAST_OPS = ("Softmax", "Sigmoid", "ArgMax")  # what predictors outside a TPU cluster often end in
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
    inputs = [node.name for node in graph_def.node if node.op == "Placeholder"]
    leaving = [
        node.name
        for node in graph_def.node
        if node.op == "Identity"
        and view.nodes[Edge.parse(node.input[0]).node].op == "TPUReplicatedOutput"
    ]
    outputs = leaving or [
        node.name for node in graph_def.node if node.name not in consumed and node.op in LAST_OPS
    ]
    return _named(inputs), _named(outputs)


def _named(nodes: List[str]) -> Dict[str, str]:
    """A short name for each tensor: the node's last part, the whole where that is not unique."""
    short = [re.sub(r"_shard_0$", "", name.rpartition("/")[2]) for name in nodes]
    return {
        (last if short.count(last) == 1 else name.replace("/", "_")): name + ":0"
        for name, last in zip(nodes, short)
    }
