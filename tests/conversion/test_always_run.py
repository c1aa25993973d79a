"""Which nodes of loops and branches run whenever the graph does."""

from __future__ import annotations

from batchinfer.tf1 import tf
from conversion.graphs.always_run import always_run


def running(build):
    """The nodes that always run in the graph of build(x), and all by their op."""
    with tf.Graph().as_default() as graph:
        build(tf.placeholder(tf.float32, [], name="x"))
    nodes = graph.as_graph_def().node
    by_op = {}
    for node in nodes:
        by_op.setdefault(node.op, set()).add(node.name)
    return always_run(nodes), by_op


def counted(name, body, x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, body(y)), [0, x], name=name)[1]


def test_a_loop_inside_of_a_loop_ends_inside_of_it():
    found, by_op = running(lambda x: counted("outer", lambda y: counted("inner", tf.tanh, y), x))
    assert found & by_op["Exit"] == {"outer/Exit", "outer/Exit_1"}
    assert not found & (by_op["Tanh"] | by_op["Merge"] | by_op["Enter"] | by_op["NextIteration"])


def test_a_branch_inside_of_a_branch_joins_inside_of_it():
    def build(x):
        inner = lambda: tf.cond(x > 1, lambda: x * 2, lambda: x * 3, name="inner")  # noqa: E731
        tf.identity(tf.cond(x > 0, inner, lambda: x * 5, name="outer"), name="y")

    found, by_op = running(build)
    assert found & by_op["Merge"] == {"outer/Merge"}
    assert "y" in found and not found & by_op["Mul"]


def test_a_loop_in_a_branch_and_a_branch_in_a_loop_are_inside():
    def build(x):
        looped = lambda: counted("in_branch", tf.tanh, x)  # noqa: E731
        tf.cond(x > 0, looped, lambda: x, name="first")
        decide = lambda y: tf.cond(y > 0, lambda: y, lambda: -y, name="inside")  # noqa: E731
        counted("around", decide, x)

    found, by_op = running(build)
    assert found & by_op["Exit"] == {"around/Exit", "around/Exit_1"}
    assert found & by_op["Merge"] == {"first/Merge"}
