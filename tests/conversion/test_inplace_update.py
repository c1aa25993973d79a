"""Rows written in place, in graphs that run more than once."""

from __future__ import annotations

import pytest
from tensorflow.python.ops import inplace_ops

from batchinfer.tf1 import tf
from conversion.surgery import operate

WRITE = {
    "InplaceUpdate": inplace_ops.alias_inplace_update,
    "InplaceAdd": inplace_ops.alias_inplace_add,
    "InplaceSub": inplace_ops.alias_inplace_sub,
}


def results(graph_def, fed):
    """What y is for each row index that is fed, in one session."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return [session.run("y:0", {"row:0": row}).tolist() for row in fed]


# ones, of which row 0 and then row 2 becomes (or changes by) 5; each run starts from ones.
@pytest.mark.parametrize(
    "op, first, second",
    [
        ("InplaceUpdate", [5.0, 1.0, 1.0], [1.0, 1.0, 5.0]),
        ("InplaceAdd", [6.0, 1.0, 1.0], [1.0, 1.0, 6.0]),
        ("InplaceSub", [-4.0, 1.0, 1.0], [1.0, 1.0, -4.0]),
    ],
)
@pytest.mark.parametrize("in_a_function", [False, True])
def test_a_run_starts_from_the_constant_and_not_from_what_the_last_run_wrote(
    op, first, second, in_a_function
):
    with tf.Graph().as_default() as graph:
        row = tf.placeholder(tf.int32, [], name="row")
        body = lambda row: WRITE[op](tf.ones([3]), row, 5.0)  # noqa: E731
        made = tf.function(body)(row) if in_a_function else body(row)
        tf.identity(made, name="y")
    original = graph.as_graph_def()
    assert results(original, [0, 2]) != [first, second]  # or there would be nothing to do
    found, applied = operate(original, ["y"])
    assert results(found, [0, 2]) == [first, second]
    assert {one.rewrite: one.count for one in applied}["inplace_update"] == 1
