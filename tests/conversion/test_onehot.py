"""One-hot embedding look-ups as gathers: the same rows, and zeros for ids outside of the table."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.graph import GraphView, check
from conversion.surgery import onehot_gather as surgery
from tests.conversion.graphs import run

TABLE = np.random.RandomState(2).randn(100, 4).astype(np.float32)
IDS = np.array([[0, 99, 7], [-1, 100, 5]], np.int32)


def lookup(between=lambda one_hot: tf.reshape(one_hot, [-1, 100]), table=TABLE, **options):
    """The graph of a look-up as BERT writes it, its result called `y`."""
    with tf.Graph().as_default() as built:
        ids = tf.placeholder(tf.int32, [None, 3], name="ids")
        one_hot = tf.one_hot(ids, options.pop("depth", 100), **options)
        tf.matmul(between(one_hot), tf.identity(tf.constant(table)), name="y")
        return built.as_graph_def()


def operated(before):
    after, count = surgery.onehot_gather(GraphView(before))
    check(after, "onehot_gather")
    return after, count


def to_bfloat16_and_back(one_hot):
    return tf.reshape(tf.cast(tf.cast(one_hot, tf.bfloat16), tf.float32), [-1, 100])


@pytest.mark.parametrize(
    "between", [lambda one_hot: tf.reshape(one_hot, [-1, 100]), to_bfloat16_and_back]
)
def test_rows_are_gathered_and_ids_outside_of_the_table_give_zeros(between):
    before = lookup(between)
    after, count = operated(before)
    found = run(after, "y:0", {"ids:0": IDS})
    assert count == 1
    assert np.array_equal(found, run(before, "y:0", {"ids:0": IDS}))
    assert np.array_equal(found[:3], TABLE[[0, 99, 7]])
    assert np.array_equal(found[3:], [[0] * 4, [0] * 4, TABLE[5]])


def test_the_batch_stays_unknown_and_the_one_hot_values_are_no_longer_needed():
    after, _ = operated(lookup())
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(after, name="")
        assert imported.get_tensor_by_name("y:0").shape.as_list() == [None, 4]
    assert "OneHot" not in {after_node.op for after_node in needed(after)}


def needed(graph_def):
    names = GraphView(graph_def, ["y"]).reachable()
    return [one for one in graph_def.node if one.name in names]


@pytest.mark.parametrize(
    "before",
    [
        lookup(on_value=2.0),
        lookup(off_value=0.1),
        lookup(axis=1, between=lambda one_hot: tf.reshape(one_hot, [-1, 100])),
        lookup(lambda x: tf.reshape(x, [-1, 100]) * 2),
        lookup(lambda x: tf.reshape(x, [-1, 100]), depth=50),  # two ids in each row
        lookup(lambda x: tf.reshape(x, [-1, 8]), TABLE[:8], depth=8),  # quick as it is
    ],
    ids=["on", "off", "axis", "scaled", "depth", "small"],
)
def test_what_is_no_plain_look_up_in_a_large_table_stays(before):
    assert operated(before) == (before, 0)


def test_a_transposed_table_stays():
    with tf.Graph().as_default() as built:
        ids = tf.placeholder(tf.int32, [None], name="ids")
        tf.matmul(tf.one_hot(ids, 100), tf.ones([4, 100]), transpose_b=True, name="y")
    before = built.as_graph_def()
    assert operated(before) == (before, 0)


def test_ids_of_eight_bits_reach_every_row_of_their_range():
    with tf.Graph().as_default() as built:
        ids = tf.placeholder(tf.uint8, [None], name="ids")
        tf.matmul(tf.one_hot(ids, 100), TABLE, name="y")
    after, _ = operated(built.as_graph_def())
    found = run(after, "y:0", {"ids:0": np.array([0, 99, 100, 255], np.uint8)})
    assert np.array_equal(found, [TABLE[0], TABLE[99], [0] * 4, [0] * 4])
