"""Calls of functions that hold TPU ops -> the functions' nodes in the main graph."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from batchinfer.errors import ConversionError
from conversion.graph import CONTROL, Edge, GraphView, copied, with_nodes
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value, op_def

ALWAYS = "TPUPartitionedCall"
MAX_DEPTH = 64  # of calls in calls; a function that calls itself would be inlined for ever


def inline_functions(view: GraphView) -> Tuple[Any, int]:
    """Replace each call until no call of a function with TPU ops is left, nested ones included.

    Raises:
        ConversionError: functions that call themselves.
    """
    graph_def, count = view.graph_def, 0
    for _ in range(MAX_DEPTH):
        view = GraphView(graph_def, view.roots)
        calls = {node.name: node for node in graph_def.node if _callee(view, node)}
        if not calls:
            return graph_def, count
        count += len(calls)
        graph_def = _inlined(view, calls)
    raise ConversionError(
        f"function calls are nested more than {MAX_DEPTH} deep, as in {next(iter(calls))[:200]}: "
        "expected functions that end, found one that calls itself"
    )


def holds_tpu_ops(view: GraphView, function: str, seen: Tuple[str, ...] = ()) -> bool:
    """Whether a function, or one that it calls, has an op that is only there for a TPU."""
    if function in seen:
        return False
    return any(
        node.op.startswith(("TPU", "CrossReplica"))
        or any(holds_tpu_ops(view, name, seen + (function,)) for name in view.called_by(node))
        for node in view.functions[function].node_def
    )


def _callee(view: GraphView, node: Any) -> str:
    """The function to put in the node's place, or "" when the node stays."""
    if node.op in view.functions:
        return node.op if holds_tpu_ops(view, node.op) else ""
    if node.op not in (ALWAYS, "PartitionedCall", "StatefulPartitionedCall", "BatchFunction"):
        return ""
    name = node.attr["f"].func.name
    if name not in view.functions:
        raise ConversionError(
            f"node {node.name} calls function {name}, which is not in the graph's library of "
            f"{len(view.functions)} functions; expected a whole artifact: export it again"
        )
    return name if node.op == ALWAYS or holds_tpu_ops(view, name) else ""


def _inlined(view: GraphView, calls: Dict[str, Any]) -> Any:
    """The graph with every call replaced by its function's nodes under the call's name."""
    nodes: List[Any] = []
    results: Dict[str, List[Edge]] = {}
    effects: Dict[str, List[str]] = {}
    for node in view.graph_def.node:
        if node.name in calls:
            body, results[node.name], effects[node.name] = _body(view, node)
            nodes += body
        else:
            nodes.append(node)
    made = copied(with_nodes(view.graph_def, nodes))
    for node in made.node:
        edges = [edge for text in node.input for edge in _redirected(text, results, effects)]
        data = [str(edge) for edge in edges if edge.index != CONTROL]
        control = sorted({str(edge) for edge in edges if edge.index == CONTROL})
        del node.input[:]
        node.input.extend(data + control)
    return made


def _redirected(
    text: str, results: Dict[str, List[Edge]], effects: Dict[str, List[str]]
) -> List[Edge]:
    """Follow an edge out of a call into its body; a body may return what another call gave."""
    edge = Edge.parse(text)
    if edge.node not in results:
        return [edge]
    if edge.index != CONTROL:
        return _redirected(str(results[edge.node][edge.index]), results, effects)
    after = effects[edge.node] + [result.node for result in results[edge.node]]
    return [
        Edge(end.node, CONTROL)
        for name in after
        for end in _redirected("^" + name, results, effects)
    ]


def _body(view: GraphView, call: Any) -> Tuple[List[Any], List[Edge], List[str]]:
    """The callee's nodes for one call, the tensors it returns, and the nodes it must run."""
    function = view.functions[_callee(view, call)]
    edges = [Edge.parse(text) for text in call.input]
    tensors = [edge for edge in edges if edge.index != CONTROL]
    if call.op == ALWAYS:
        tensors = tensors[:-1]  # the last one says on which TPU core to run
    scope = _Scope(view, call, function, tensors)
    waits_for = [str(edge) for edge in edges if edge.index == CONTROL]
    nodes = [scope.node(node, waits_for) for node in function.node_def]
    results = [scope.edge(function.ret[output.name]) for output in function.signature.output_arg]
    return nodes, results, [scope.prefix + name for name in function.control_ret.values()]


class _Scope:
    """Names of one function's body as they are in the main graph, under the call's name."""

    def __init__(self, view: GraphView, call: Any, function: Any, tensors: List[Edge]) -> None:
        self.prefix = call.name + "/"
        self._call = call
        self._arguments = dict(
            zip((argument.name for argument in function.signature.input_arg), tensors)
        )
        self._first_index = {
            node.name: _first_indices(node, view.functions) for node in function.node_def
        }

    def edge(self, text: str) -> Edge:
        """`argument`, `node:output:index` or `^node` of a FunctionDef as a GraphDef's edge."""
        if text.startswith("^"):
            argument = self._arguments.get(text[1:])
            return Edge(argument.node if argument else self.prefix + text[1:], CONTROL)
        name, _, rest = text.partition(":")
        if name in self._arguments:
            return self._arguments[name]
        output, _, index = rest.partition(":")
        return Edge(self.prefix + name, self._first_index[name][output] + int(index or 0))

    def node(self, node: Any, waits_for: List[str]) -> Any:
        """A node of the body; what the call waited for, it waits for."""
        made = type(node)()
        made.CopyFrom(node)
        made.name = self.prefix + node.name
        del made.input[:]
        made.input.extend([str(self.edge(text)) for text in node.input] + waits_for)
        for attr in made.attr.values():
            if attr.placeholder:
                attr.CopyFrom(self._call.attr[attr.placeholder])
        if "_class" in made.attr:
            places = made.attr["_class"].list
            places.s[:] = [b"loc:@" + self._place(name[5:]) for name in places.s]
        if "frame_name" in made.attr:  # two calls of one function must not share a loop
            made.attr["frame_name"].s = self.prefix.encode() + made.attr["frame_name"].s
        return made

    def _place(self, name: bytes) -> bytes:
        inside = name.decode() in self._first_index
        return self.prefix.encode() + name if inside else name


def _first_indices(node: Any, functions: Dict[str, Any]) -> Dict[str, int]:
    """Flat index of the first tensor of each named output of a node."""
    definition = functions[node.op].signature if node.op in functions else op_def(node.op)
    if definition is None:
        raise ConversionError(
            f"op {node.op} of node {node.name} is not known to this TensorFlow; "
            "import the library that registers it before converting"
        )
    found, index = {}, 0
    for output in definition.output_arg:
        found[output.name] = index
        if output.number_attr:
            index += attr_value(node, output.number_attr, definition).i
        elif output.type_list_attr:
            index += len(attr_value(node, output.type_list_attr, definition).list.type)
        else:
            index += 1
    return found


REWRITE = Rewrite(
    name="inline_functions",
    does="puts the nodes of functions that hold TPU ops in the place of their calls",
    run=inline_functions,
    fates={ALWAYS: "replaced by the nodes of its function"},
)
