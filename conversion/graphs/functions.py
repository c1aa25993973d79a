"""Functions of a GraphDef's library <-> graphs of their own, with a main graph's edges.

A FunctionDef writes an edge as `node:output:index`, so that an op cannot be replaced by one
whose output has another name without its readers being changed. Rewrites therefore look at a
flat library, in which edges are those of a main graph (`node`, `node:1`, `^node`).
"""

from __future__ import annotations

from typing import Any, Callable, Dict, FrozenSet, Mapping, Tuple

from batchinfer.errors import ConversionError
from batchinfer.tf1 import tf
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied
from conversion.tf_internals import attr_value, op_def

ARGUMENT, RESULT = "_Arg", "_Retval"  # how TensorFlow calls the ends of an instantiated function


def flat(graph_def: Any) -> Any:
    """The graph, its functions with a main graph's edges.

    Raises:
        ConversionError: an op that this TensorFlow does not know, or an argument that stands
            for several tensors, which no Python API of TensorFlow writes.
    """
    return _respelled(graph_def, lambda *edge: str(_flat_edge(*edge)))


def named(graph_def: Any) -> Any:
    """The inverse of `flat`: functions as TensorFlow imports them."""
    return _respelled(graph_def, _named_edge)


def _respelled(graph_def: Any, spell: Callable[[str, Any, Any], str]) -> Any:
    """Every edge in the functions, spelled otherwise."""
    if not graph_def.library.function:
        return graph_def
    made = copied(graph_def)
    known = GraphView(made).functions
    for function in made.library.function:
        arguments = _arguments(function)
        ranges = {node.name: output_ranges(node, known) for node in function.node_def}
        for node in function.node_def:
            node.input[:] = [spell(text, arguments, ranges) for text in node.input]
        for name, text in function.ret.items():
            function.ret[name] = spell(text, arguments, ranges)
    return made


def body_of(function: Any) -> Any:
    """A flat function as a GraphDef: `_Arg` nodes, its nodes, and `_Retval` nodes.

    The `_Arg` nodes have the arguments' names, and stand first, in their order; the `_Retval`
    nodes stand last, in the order of the results. Types that an attribute of the call gives
    are placeholders.
    """
    made = tf.GraphDef()
    for index, argument in enumerate(function.signature.input_arg):
        node = made.node.add(name=argument.name, op=ARGUMENT)
        node.attr["index"].i = index
        _set_type(node, argument)
    made.node.extend(function.node_def)
    taken = {node.name for node in made.node}
    for index, result in enumerate(function.signature.output_arg):
        node = made.node.add(name=free_name("result_" + result.name, taken), op=RESULT)
        node.attr["index"].i = index
        _set_type(node, result)
        node.input.append(function.ret[result.name])
    return made


def put_body(function: Any, body: Any) -> None:
    """Give a flat function, in place, the nodes and results of a graph that `body_of` began.

    A control output whose node is gone goes as well.
    """
    kept = [node for node in body.node if node.op not in (ARGUMENT, RESULT)]
    results = {node.attr["index"].i: node.input[0] for node in body.node if node.op == RESULT}
    del function.node_def[:]
    function.node_def.extend(kept)
    for index, result in enumerate(function.signature.output_arg):
        function.ret[result.name] = results[index]
    names = {node.name for node in kept}
    for output, name in list(function.control_ret.items()):
        if name not in names:
            del function.control_ret[output]
            function.signature.control_output.remove(output)


def in_each_body(view: GraphView, run: Callable[[GraphView], Tuple[Any, int]]) -> Tuple[Any, int]:
    """Run a rewrite on the main graph, and on each flat function as a graph of its own."""
    made, count = run(view)
    for function in made.library.function:
        body = body_of(function)
        roots = [node.name for node in body.node if node.op in (ARGUMENT, RESULT)]
        inner = GraphView(body, roots + list(function.control_ret.values()))
        inner.functions.update(view.functions)
        body, found = run(inner)
        put_body(function, body)
        count += found
    return made, count


def output_ranges(node: Any, functions: Mapping[str, Any]) -> Dict[str, Tuple[int, int]]:
    """First flat index and number of tensors of each named output of a node.

    Raises:
        ConversionError: neither TensorFlow nor the library knows the op.
    """
    definition = functions[node.op].signature if node.op in functions else op_def(node.op)
    if definition is None:
        raise ConversionError(
            f"op {node.op} of node {node.name} is not known to TensorFlow {tf.__version__}; "
            "import the library that registers it before converting"
        )
    found, index = {}, 0
    for output in definition.output_arg:
        size = _num_tensors(node, output, definition)
        found[output.name] = (index, size)
        index += size
    return found


def free_name(name: str, taken: Any) -> str:
    """`name`, or the first of `name_1`, `name_2`, ... that is not taken; taken from now on."""
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    taken.add(found)
    return found


def _num_tensors(node: Any, output: Any, definition: Any) -> int:
    if output.number_attr:
        return int(attr_value(node, output.number_attr, definition).i)
    if output.type_list_attr:
        return len(attr_value(node, output.type_list_attr, definition).list.type)
    return 1


def _arguments(function: Any) -> FrozenSet[str]:
    arguments = list(function.signature.input_arg) + list(function.signature.output_arg)
    lists = [one.name for one in arguments if one.number_attr or one.type_list_attr]
    if lists:
        raise ConversionError(
            f"function {function.signature.name} has arguments or results that each stand for "
            f"several tensors: {', '.join(lists)}; expected one tensor each, as Python writes them"
        )
    return frozenset(argument.name for argument in function.signature.input_arg)


def _flat_edge(
    text: str, arguments: FrozenSet[str], ranges: Mapping[str, Mapping[str, Tuple[int, int]]]
) -> Edge:
    if text.startswith("^"):
        return Edge(text[1:], CONTROL)
    name, _, rest = text.partition(":")
    if name in arguments:
        return Edge(name, 0)
    output, _, index = rest.partition(":")
    return Edge(name, ranges[name][output][0] + int(index or 0))


def _named_edge(
    text: str, arguments: FrozenSet[str], ranges: Mapping[str, Mapping[str, Tuple[int, int]]]
) -> str:
    edge = Edge.parse(text)
    if edge.index == CONTROL or edge.node in arguments:
        return str(edge)
    for output, (first, size) in ranges[edge.node].items():
        if first <= edge.index < first + size:
            return f"{edge.node}:{output}:{edge.index - first}"
    raise ConversionError(f"{edge} is read, but {edge.node} has no such output")


def _set_type(node: Any, argument: Any) -> None:
    if argument.type_attr:
        node.attr["T"].placeholder = argument.type_attr
    else:
        node.attr["T"].type = argument.type
