"""Reference variables (VariableV2) -> resource variables, so that a bundle has one kind."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from conversion.graphs.functions import free_name
from conversion.graphs.graph import Edge, GraphView, copied
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import op_def

OPS = ("VariableV2", "Variable")


def resource_variables(view: GraphView) -> Tuple[Any, int]:
    """Each becomes a VarHandleOp of the same name with one ReadVariableOp behind it.

    An op that takes the reference itself, an Assign, keeps its input and is refused by the
    inventory: a predictor does not write to its variables.
    """
    graph_def = copied(view.graph_def)
    variables = {node.name: node for node in graph_def.node if node.op in OPS}
    written = {
        Edge.parse(node.input[index]).node
        for node in graph_def.node
        for index in _reference_inputs(node)
    }
    reads: Dict[str, str] = {}
    made: Dict[str, Any] = {}
    taken = set(view.nodes)
    for name in sorted(set(variables) - written):
        reads[name] = free_name(name + "/ReadVariableOp", taken)
        read = graph_def.node.add(name=reads[name], op="ReadVariableOp")
        made[name] = read
        read.attr["dtype"].type = variables[name].attr["dtype"].type
        _become_handle(variables[name])
    for node in graph_def.node:
        for index, text in enumerate(node.input):
            edge = Edge.parse(text)
            if edge.index == 0 and edge.node in reads:
                node.input[index] = reads[edge.node]
    for name, read in made.items():
        read.input.append(name)
    return graph_def, len(reads)


def _reference_inputs(node: Any) -> Tuple[int, ...]:
    """Positions of the inputs for which the op asks for a reference."""
    definition = op_def(node.op)
    arguments = definition.input_arg if definition else ()
    return tuple(index for index, argument in enumerate(arguments) if argument.is_ref)


def _become_handle(node: Any) -> None:
    node.op = "VarHandleOp"
    if not node.attr["shared_name"].s:
        node.attr["shared_name"].s = node.name.encode()


REWRITE = Rewrite(
    name="resource_variables",
    does="turns reference variables into resource variables that are read once",
    run=resource_variables,
    fates=dict.fromkeys(OPS, "replaced by VarHandleOp and ReadVariableOp"),
)
