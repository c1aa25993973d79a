"""Branches that are decided when the graph is built, or by a default that nothing feeds."""

from __future__ import annotations

import pytest

from batchinfer.tf1 import tf
from conversion.graphs import inventory
from conversion.graphs.defaults import with_settled_defaults
from conversion.surgery import operate


@pytest.fixture(params=[False, True], ids=["switch and merge", "If"])
def functional(request):
    """The two ways in which TF 1.15 writes a conditional."""
    if request.param:
        tf.enable_control_flow_v2()
    yield request.param
    tf.disable_control_flow_v2()


def converted(build, fed=("x",)):
    """The graph of y = build(x) after surgery, and how often a branch was decided."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(tf.placeholder(tf.float32, [2], name="x")), name="y")
    graph_def = with_settled_defaults(graph.as_graph_def(), fed)
    graph_def, applied = operate(graph_def, ["y"])
    counts = {one.rewrite: one.count for one in applied}
    return graph_def, counts["constant_branches"]


def run(graph_def, **fed):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.import_graph_def(graph_def, name="")
        feeds = {"x:0": [1.0, 2.0], **{name + ":0": value for name, value in fed.items()}}
        return session.run("y:0", feeds).tolist()


def phase():
    return tf.placeholder_with_default(False, [], name="keras_learning_phase")


def noisy(x):
    return tf.nn.dropout(x, rate=0.5)


def test_the_branch_that_a_default_excludes_is_gone_with_its_random_numbers(functional):
    found, _ = converted(lambda x: tf.cond(phase(), lambda: noisy(x), lambda: x * 3))
    assert inventory.refusals(found) == ()
    assert run(found) == [3.0, 6.0]


def test_a_predicate_may_be_computed_from_constants_and_be_read_in_another_branch():
    def build(x):
        drops = tf.constant(0.0) > 0.0
        inner = lambda: tf.cond(drops, lambda: noisy(x), lambda: x * 3)  # noqa: E731
        return tf.cond(tf.reduce_sum(x) > 0, inner, lambda: x * 5)

    found, _ = converted(build)
    assert inventory.refusals(found) == ()
    assert run(found) == [3.0, 6.0]


def test_a_loop_that_never_runs_stays_a_loop():
    def build(x):
        return tf.while_loop(lambda _: tf.constant(False), lambda y: y * 2, [x])

    found, count = converted(build)
    assert (run(found), count) == ([1.0, 2.0], 0)


@pytest.mark.parametrize("predicate, expected", [(True, [11.0, 12.0]), (False, [3.0, 6.0])])
def test_either_branch_can_be_the_one_that_is_taken(functional, predicate, expected):
    def build(x):
        decided = tf.logical_and(tf.logical_not(phase()), tf.constant(predicate))
        return tf.cond(decided, lambda: x + 10, lambda: x * 3)

    found, _ = converted(build)
    assert run(found) == expected
    assert not {node.op for node in found.node} & {"Switch", "Merge", "If", "StatelessIf"}


def test_a_branch_inside_of_a_branch_is_decided_as_well():
    def inner(x):
        return tf.cond(phase(), lambda: noisy(x), lambda: x + 1) * 2

    found, _ = converted(lambda x: tf.cond(tf.constant(True), lambda: inner(x), lambda: noisy(x)))
    assert inventory.refusals(found) == ()
    assert run(found) == [4.0, 6.0]


def test_a_predicate_from_outside_of_a_loop_is_decided_inside():
    def build(x):
        outside = phase()
        body = lambda i, y: (i + 1, tf.cond(outside, lambda: noisy(y), lambda: y * 2))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]

    found, count = converted(build)
    assert count > 0
    assert inventory.refusals(found) == ()
    assert run(found) == [8.0, 16.0]


def test_a_loop_in_a_branch_that_is_not_taken_is_gone():
    def build(x):
        loop = lambda: tf.while_loop(lambda y: y[0] < 9, lambda y: noisy(y) + 1, [x])  # noqa: E731
        return tf.cond(phase(), loop, lambda: x)

    found, _ = converted(build)
    assert inventory.refusals(found) == ()
    assert not {node.op for node in found.node} & {"Enter", "Exit", "LoopCond"}
    assert run(found) == [1.0, 2.0]


def test_the_index_that_a_merge_gives_becomes_a_constant():
    def build(x):
        dead, live = tf.raw_ops.Switch(data=x, pred=phase())[::-1]
        merged = tf.raw_ops.Merge(inputs=[noisy(dead), live + 1])
        return merged[0] + tf.cast(merged[1], tf.float32) * 100

    found, _ = converted(build)
    assert run(found) == [102.0, 103.0]


def test_what_is_an_input_still_decides_when_it_is_fed(functional):
    build = lambda x: tf.cond(phase(), lambda: x + 10, lambda: x * 3)  # noqa: E731
    found, count = converted(build, fed=("x", "keras_learning_phase"))
    assert count == 0
    assert run(found) == [3.0, 6.0]
    assert run(found, keras_learning_phase=True) == [11.0, 12.0]


def test_a_predicate_that_depends_on_the_input_is_left_alone(functional):
    build = lambda x: tf.cond(x[0] > 0, lambda: x + 10, lambda: x * 3)  # noqa: E731
    found, count = converted(build)
    assert (count, run(found)) == (0, [11.0, 12.0])
