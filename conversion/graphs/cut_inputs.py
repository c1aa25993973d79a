"""Inputs that are not placeholders -> placeholders, with nothing of what fed them."""

from __future__ import annotations

import re
from typing import Any, Dict, List, Mapping, Tuple

from batchinfer.errors import InputError
from conversion.graphs.clusters import Clusters
from conversion.graphs.frames import frame_stacks
from conversion.graphs.functions import free_name
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied

INPUT_SCOPE = "inputs/"
FED = ("Placeholder", "PlaceholderWithDefault")


def with_cut_inputs(
    graph_def: Any, graph: Any, inputs: Mapping[str, str]
) -> Tuple[Any, Dict[str, str]]:
    """Let the readers of a tensor that is named as an input read a placeholder instead.

    So a predictor that an infeed or a dataset feeds (`--input image=InfeedDequeueTuple:0`) is
    without them. Shapes are those of the tensor: for an infeed, one core's share of the batch.

    Args:
        graph: the same graph imported, for dtypes and shapes.

    Returns:
        The graph, and the tensors by input name.

    Raises:
        InputError: a tensor gives another value in each round of a loop, or on each core.
    """
    view = GraphView(graph_def)
    edges = {name: Edge.parse(tensor) for name, tensor in inputs.items()}
    cut = {name: edge for name, edge in edges.items() if view.nodes[edge.node].op not in FED}
    if not cut:
        return graph_def, dict(inputs)
    _refuse_many_values(view, cut)
    made, taken = copied(graph_def), set(view.nodes)
    names: Dict[Edge, str] = {}
    for name, edge in cut.items():
        if edge in names:
            continue
        tensor = graph.get_tensor_by_name(f"{edge.node}:{edge.index}")
        safe = re.sub(r"[^A-Za-z0-9_.\\/>-]", "_", name)
        node = made.node.add(name=free_name(INPUT_SCOPE + safe, taken), op="Placeholder")
        node.attr["dtype"].type = tensor.dtype.base_dtype.as_datatype_enum
        node.attr["shape"].shape.CopyFrom(tensor.shape.as_proto())
        names[edge] = node.name
    whole = {edge.node: name for edge, name in names.items()}  # the node counts as given
    for node in made.node:
        node.input[:] = [_moved(text, names, whole) for text in node.input]
    return made, {name: names[edges[name]] + ":0" if name in cut else tensor
                  for name, tensor in inputs.items()}  # fmt: skip


def _moved(text: str, names: Mapping[Edge, str], whole: Mapping[str, str]) -> str:
    edge = Edge.parse(text)
    if edge.index == CONTROL:
        return "^" + whole.get(edge.node, edge.node)
    return names.get(edge, text)


def _refuse_many_values(view: GraphView, cut: Mapping[str, Edge]) -> None:
    stacks = frame_stacks(view.graph_def.node)
    clusters = Clusters(view)
    problems: List[str] = []
    for name, edge in cut.items():
        if stacks.get(edge.node):
            loop = stacks[edge.node][-1]
            problems.append(f"{name}={edge} is inside of loop {loop}: one value in each round")
        elif clusters.num_copies(edge.node) > 1:
            number = clusters.num_copies(edge.node)
            problems.append(f"{name}={edge} is inside of a cluster: {number} cores have one each")
    if problems:
        raise InputError(
            "expected inputs with one value per run; found\n  " + "\n  ".join(problems) + "\nName "
            "tensors outside of it, or build the model by --model-fn"
        )
