"""Shapes behind loops, after a graph was written and imported again."""

from __future__ import annotations

import pytest

from batchinfer.tf1 import tf
from conversion.graphs.loop_shapes import settled_shapes


def imported_loop(num_rows):
    """x -> x + 1, five times; the loop's result, and a tensor that only a feed can know."""
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [num_rows, 3], name="x")
        found = tf.while_loop(lambda i, _: i < 5, lambda i, y: (i + 1, y + 1), [0, x])
        tf.identity(found[1], name="y")
        tf.placeholder(tf.float32, name="anything")
    again = tf.Graph()
    with again.as_default():
        tf.import_graph_def(graph.as_graph_def(), name="")
    return again


@pytest.mark.parametrize("num_rows", [None, 4])
def test_the_shape_of_a_loop_settles_where_an_import_knows_none(num_rows):
    graph = imported_loop(num_rows)
    assert graph.get_tensor_by_name("y:0").shape.ndims is None
    assert settled_shapes(graph, ["y:0"])["y:0"].as_list() == [num_rows, 3]


def test_a_rank_that_nothing_tells_stays_unknown():
    found = settled_shapes(imported_loop(4), ["y:0", "anything:0"])
    assert found["anything:0"].ndims is None


def test_what_a_map_over_rows_gathers_has_a_shape():
    with tf.Graph().as_default() as graph:
        rows = tf.placeholder(tf.float32, [None, 3])
        tf.identity(tf.map_fn(lambda row: row * 2, rows), name="rows")
        tf.identity(tf.map_fn(tf.reduce_sum, rows), name="sums")
    again = tf.Graph()
    with again.as_default():
        tf.import_graph_def(graph.as_graph_def(), name="")
    assert again.get_tensor_by_name("rows:0").shape.ndims is None
    found = settled_shapes(again, ["rows:0", "sums:0"])
    assert {name: shape.as_list() for name, shape in found.items()} == {
        "rows:0": [None, 3],
        "sums:0": [None],
    }
