"""Tables that a function fills -> the ops that fill them in the main graph.

tf.saved_model.save calls a function per table, and keeps the path of a table's file in a variable
of its own. With the ops in the main graph, such a SavedModel is one like any other.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List

from batchinfer.errors import ConversionError
from conversion.graphs.graph import Edge, GraphView, copied

INITIALISERS = ("InitializeTable", "LookupTableImport")  # beginnings of op names


def open_table_calls(graph_def: Any, asset_tensors: Iterable[str]) -> Any:
    """Add the ops that fill tables inside functions; the calls stay, for whoever reads them.

    Args:
        asset_tensors: names of the tensors that get the files' paths when the model is loaded.
    """
    view = GraphView(graph_def)
    added: List[Any] = []
    for node in graph_def.node:
        for name in view.called_by(node):
            added += _opened(view, name, list(node.input), node.name + "/")
    if not added:
        return graph_def
    made = copied(graph_def)
    made.node.extend(added)
    _read_paths_directly(made, asset_tensors)
    return made


def _opened(view: GraphView, name: str, inputs: List[str], prefix: str) -> List[Any]:
    """The function's ops that fill tables, and what they need of it, as nodes of the main graph.

    Args:
        inputs: edges of the call, data first.
    """
    function = view.functions[name]
    body = {node.name: node for node in function.node_def}
    arguments = dict(zip([one.name for one in function.signature.input_arg], inputs))
    made: Dict[str, Any] = {}
    nested: List[Any] = []

    def outer(text: str) -> str:
        if text in arguments:
            return arguments[text]
        inner = text.partition(":")[0]
        _copy(inner)
        index = text.rpartition(":")[2] if ":" in text else "0"
        if text.count(":") == 2 and index != "0":
            raise ConversionError(
                f"function {name} fills a table from output {text}, the second of its op; "
                "expected constants and arguments"
            )
        return prefix + inner

    def _copy(inner: str) -> None:
        if inner not in made:
            node = made[inner] = type(body[inner])()
            node.CopyFrom(body[inner])
            node.name = prefix + inner
            data = [text for text in body[inner].input if not text.startswith("^")]
            node.input[:] = [outer(text) for text in data]

    for node in function.node_def:
        if node.op.startswith(INITIALISERS):
            _copy(node.name)
        for called in view.called_by(node):
            if _fills_tables(view, called):
                data = [text for text in node.input if not text.startswith("^")]
                edges = [outer(text) for text in data]
                nested += _opened(view, called, edges, f"{prefix}{node.name}/")
    return [*made.values(), *nested]


def _fills_tables(view: GraphView, name: str) -> bool:
    body = view.functions[name].node_def
    return any(
        node.op.startswith(INITIALISERS)
        or any(_fills_tables(view, called) for called in view.called_by(node))
        for node in body
    )


def _read_paths_directly(graph_def: Any, asset_tensors: Iterable[str]) -> None:
    """Let readers of a variable that holds a file's path read the path itself."""
    paths = {str(Edge.parse(tensor)) for tensor in asset_tensors}
    held = {
        Edge.parse(node.input[0]).node: node.input[1]
        for node in graph_def.node
        if node.op == "AssignVariableOp" and str(Edge.parse(node.input[1])) in paths
    }
    for node in graph_def.node:
        if node.op == "ReadVariableOp" and Edge.parse(node.input[0]).node in held:
            path = held[Edge.parse(node.input[0]).node]
            dtype = node.attr["dtype"].type
            node.op = "Identity"
            node.attr.clear()
            node.attr["T"].type = dtype
            node.input[:] = [path]
