"""Small GraphDefs, written as one would draw them."""

from __future__ import annotations

from batchinfer.tf1 import tf


def node(name, op, *inputs, **attrs):
    """A NodeDef; attributes are types, ints, bytes, bools, lists of them, or protos."""
    made = tf.NodeDef(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        _set(made.attr[key], value)
    return made


def _set(attr, value):
    if isinstance(value, tf.DType):
        attr.type = value.as_datatype_enum
    elif isinstance(value, bool):
        attr.b = value
    elif isinstance(value, int):
        attr.i = value
    elif isinstance(value, bytes):
        attr.s = value
    elif isinstance(value, tf.AttrValue):
        attr.CopyFrom(value)
    elif isinstance(value, list) and isinstance(value[0], int):
        attr.list.i.extend(value)
    elif isinstance(value, list) and isinstance(value[0], bytes):
        attr.list.s.extend(value)
    elif isinstance(value, list):
        attr.list.type.extend(dtype.as_datatype_enum for dtype in value)
    else:
        attr.tensor.CopyFrom(value)


def calls(name):
    """The attribute value that names a function."""
    return tf.AttrValue(func=tf.NameAttrList(name=name))


def const(name, value, dtype=tf.float32, *control):
    return node(name, "Const", *control, dtype=dtype, value=tf.make_tensor_proto(value, dtype))


def graph(*nodes):
    return tf.GraphDef(node=nodes)


def add_function(graph_def, name, inputs, outputs, nodes, control=()):
    """Add a function of float32 arguments; `outputs` maps an output to `node:output:index`."""
    function = graph_def.library.function.add()
    function.signature.name = name
    for argument in inputs:
        function.signature.input_arg.add(name=argument, type=tf.float32.as_datatype_enum)
    for output, source in outputs.items():
        function.signature.output_arg.add(name=output, type=tf.float32.as_datatype_enum)
        function.ret[output] = source
    for effect in control:
        function.signature.control_output.append(effect)
        function.control_ret[effect] = effect
    function.node_def.extend(nodes)
    return function


def lines(graph_def):
    """Each node as `name = op(inputs)`, in order."""
    return [f"{one.name} = {one.op}({', '.join(one.input)})" for one in graph_def.node]


def run(graph_def, fetch, feeds=None):
    """Import and run: the values of `fetch`."""
    with tf.Graph().as_default() as imported, tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        feeds = {imported.get_tensor_by_name(name): value for name, value in (feeds or {}).items()}
        return session.run(fetch, feeds)
