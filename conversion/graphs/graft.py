"""Nodes of a graph or of its functions -> subgraphs that TensorFlow's own API builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView, copied, with_nodes
from conversion.tf_internals import attr_value, op_def

NODE_HINTS = ("_class", "_output_shapes")  # stale after surgery; not looked at here


@dataclass(frozen=True)
class Site:
    """A node to replace, as its builder sees it.

    Attributes:
        node: the NodeDef; its attributes are read with `attr_value`.
        inputs: its inputs, as placeholders of the scratch graph that the builder adds to. Dtypes
            are exact; shapes are as inferred, and unknown inside functions.
        functions: the library's functions by name.
        op: the node in the graph where shapes are inferred; None inside functions.
    """

    node: Any
    inputs: Tuple[Any, ...]
    functions: Mapping[str, Any]
    op: Optional[Any]
    _constants: Callable[[int], Optional[Any]]
    _taps: Dict[str, str] = field(default_factory=dict)

    def value(self, index: int) -> Optional[Any]:
        """An input as an array where it is a constant; else None."""
        return self._constants(index)

    def tap(self, tensor: Any) -> Any:
        """Another tensor of `op`'s graph, for the replacement to read."""
        made = tf.placeholder(tensor.dtype.base_dtype, tensor.shape, name="tap")
        self._taps[made.op.name] = str(Edge(tensor.op.name, tensor.value_index))
        return made


# Gives the node's outputs, or None to leave the node as it is.
Builder = Callable[[Site], Optional[Sequence[Any]]]


def graft(view: GraphView, builders: Mapping[str, Builder]) -> Tuple[Any, int]:
    """Replace the nodes of some ops, in the main graph and in functions.

    Shapes are inferred again while `Xla*` ops are replaced: behind some of them TensorFlow knows
    the shape only then.

    Args:
        builders: what builds the replacement, by op.

    Returns:
        The graph, and the number of nodes replaced.
    """
    graph_def, count = view.graph_def, 0
    while True:
        graph_def, found = _graft_main(GraphView(graph_def, view.roots), builders)
        count += found
        left = {node.op for node in graph_def.node} & set(builders)
        if not found or not any(op.startswith("Xla") for op in left):
            break
    made = copied(graph_def)
    in_functions = sum(
        _graft_function(GraphView(made), function, builders) for function in made.library.function
    )
    return (made, count + in_functions) if in_functions else (graph_def, count)


def _graft_main(view: GraphView, builders: Mapping[str, Builder]) -> Tuple[Any, int]:
    if not any(node.op in builders for node in view.graph_def.node):
        return view.graph_def, 0
    graph = inferred(view.graph_def)

    def look(node: Any) -> Site:
        op = graph.get_operation_by_name(node.name)
        types = [(tensor.dtype.base_dtype, tensor.shape) for tensor in op.inputs]
        constants = lambda index: tf.get_static_value(op.inputs[index])  # noqa: E731
        return Site(node, _placeholders(types), view.functions, op, constants)

    nodes, moved, count = _grafted(view.graph_def.node, builders, look, _main_edge)
    if not count:
        return view.graph_def, 0
    made = copied(with_nodes(view.graph_def, nodes))
    for node in made.node:
        node.input[:] = [moved.get(text, text) for text in node.input]
    return made, count


def _graft_function(view: GraphView, function: Any, builders: Mapping[str, Builder]) -> int:
    """In place; the number of nodes replaced."""
    body = {node.name: node for node in function.node_def}

    def look(node: Any) -> Site:
        data = [text for text in node.input if not text.startswith("^")]
        types = [(dtype, tf.TensorShape(None)) for dtype in input_dtypes(node)]
        constants = lambda index: _constant(body, data[index])  # noqa: E731
        return Site(node, _placeholders(types), view.functions, None, constants)

    nodes, moved, count = _grafted(function.node_def, builders, look, _function_edge)
    if not count:
        return 0
    del function.node_def[:]
    function.node_def.extend(nodes)
    moved.update({old[: -len(":0")]: new for old, new in moved.items() if old.endswith(":0")})
    for node in function.node_def:
        node.input[:] = [moved.get(text, text) for text in node.input]
    for name, text in list(function.ret.items()):
        function.ret[name] = moved.get(text, text)
    return count


def _placeholders(types: List[Tuple[Any, Any]]) -> Tuple[Any, ...]:
    return tuple(tf.placeholder(dtype, shape, name="in") for dtype, shape in types)


def _grafted(
    nodes: Any,
    builders: Mapping[str, Builder],
    look: Callable[[Any], Site],
    edge: Callable[[Any, int], str],
) -> Tuple[List[Any], Dict[str, str], int]:
    """The nodes after the replacement, where edges have moved to, and the number replaced."""
    names = {node.name for node in nodes}
    in_frames = any(node.op in ("Enter", "RefEnter") for node in nodes)
    made: List[Any] = []
    moved: Dict[str, str] = {}
    count = 0
    for node in nodes:
        with tf.Graph().as_default():
            site = look(node) if node.op in builders else None
            results = _results(site, builders[node.op]) if site else None
        if site is None or results is None:
            made.append(node)
            continue
        count += 1
        added, edges = _renamed(site, results, names, edge, in_frames)
        names.update(one.name for one in added)
        made += added
        moved.update({edge(node, index): new for index, new in enumerate(edges)})
    return made, {old: new for old, new in moved.items() if old != new}, count


def _results(site: Site, builder: Builder) -> Optional[List[Any]]:
    """What the builder gives; the first from a node that can take the replaced node's name."""
    results = builder(site)
    if results is None:
        return None
    made = [tf.identity(one) if one.op.type == "Placeholder" else one for one in results]
    if len(made[0].op.outputs) > 1:
        made[0] = tf.identity(made[0])
    return made


def _renamed(
    site: Site, results: List[Any], taken: Any, edge: Callable[[Any, int], str], in_frames: bool
) -> Tuple[List[Any], List[str]]:
    """The scratch graph's nodes under the replaced node's name, and the edges to its results."""
    operations = results[0].graph.get_operations()
    data = [text for text in site.node.input if not text.startswith("^")]
    control = [text for text in site.node.input if text.startswith("^")]
    given = {**dict(zip((tensor.op.name for tensor in site.inputs), data)), **site._taps}
    names = _free_names(site.node.name, operations, taken)
    names[results[0].op.name] = site.node.name
    old = {one.name: one for one in results[0].graph.as_graph_def().node}
    added = []
    for name, one in old.items():
        if name in given:
            continue
        edges = [Edge.parse(text) for text in one.input]
        inputs = [given.get(e.node) or edge(_named(old[e.node], names), e.index) for e in edges]
        if not inputs and in_frames and data:  # a constant has to be in the frame of its reader
            inputs = ["^" + data[0].partition(":")[0]]
        if name == results[0].op.name:
            inputs = inputs + [text for text in control if text not in inputs]
        made = _named(one, names)
        made.input[:] = inputs
        added.append(made)
    return added, [edge(_named(old[r.op.name], names), r.value_index) for r in results]


def _free_names(name: str, operations: Any, taken: Any) -> Dict[str, str]:
    prefix = name + "/"
    while any(prefix + op.name in taken for op in operations):
        prefix += "_"
    return {op.name: prefix + op.name for op in operations}


def _named(node: Any, names: Mapping[str, str]) -> Any:
    made = tf.NodeDef()
    made.CopyFrom(node)
    made.name = names[node.name]
    return made


def _main_edge(node: Any, index: int) -> str:
    return str(Edge(node.name, index))


def _function_edge(node: Any, index: int) -> str:
    return f"{node.name}:{output_labels(node)[index]}"


def output_labels(node: Any) -> List[str]:
    """`output:index` of each tensor that a node gives, as a FunctionDef's edges name them."""
    definition, found = op_def(node.op), []
    for output in definition.output_arg if definition else ():
        number = 1
        if output.number_attr:
            number = attr_value(node, output.number_attr).i
        elif output.type_list_attr:
            number = len(attr_value(node, output.type_list_attr).list.type)
        found += [f"{output.name}:{index}" for index in range(number)]
    return found


def input_dtypes(node: Any) -> List[Any]:
    """The dtype of each tensor that a node reads, from its OpDef and attributes."""
    definition, found = op_def(node.op), []
    for argument in definition.input_arg if definition else ():
        if argument.type_list_attr:
            found += list(attr_value(node, argument.type_list_attr).list.type)
            continue
        number = attr_value(node, argument.number_attr).i if argument.number_attr else 1
        dtype = attr_value(node, argument.type_attr).type if argument.type_attr else argument.type
        found += [dtype] * number
    return [tf.as_dtype(dtype) for dtype in found]


def _constant(body: Mapping[str, Any], text: str) -> Optional[Any]:
    """The value of a Const of a function's body, also behind an Identity."""
    node = body.get(text.partition(":")[0])
    while node is not None and node.op == "Identity":
        node = body.get(node.input[0].partition(":")[0])
    if node is None or node.op != "Const":
        return None
    return tf.make_ndarray(node.attr["value"].tensor)


def inferred(graph_def: Any) -> Any:
    """The graph imported, so that TensorFlow infers its shapes."""
    made = copied(graph_def)
    for node in made.node:
        node.device = ""
        for name in NODE_HINTS:
            node.attr.pop(name, None)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(made, name="")
    return graph
