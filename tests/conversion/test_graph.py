"""The index over a GraphDef."""

from __future__ import annotations

import pytest

from batchinfer.errors import ConversionError
from batchinfer.tf1 import tf
from conversion.graphs.graph import CONTROL, Edge, GraphView, check
from tests.conversion.graphs import const, graph, node


@pytest.mark.parametrize(
    "text, edge",
    [
        ("a", Edge("a", 0)),
        ("a/b:2", Edge("a/b", 2)),
        ("^a", Edge("a", CONTROL)),
    ],
)
def test_an_edge_is_read_and_written_as_graphdef_has_it(text, edge):
    assert Edge.parse(text) == edge
    assert str(edge) == text


def test_what_the_roots_need_includes_what_they_wait_for():
    looked_at = graph(
        const("a", 1.0),
        node("check", "NoOp"),
        node("out", "Identity", "a", "^check", T=tf.float32),
        node("unused", "Identity", "a", T=tf.float32),
    )
    assert GraphView(looked_at, ["out"]).reachable() == {"out", "a", "check"}


def test_a_broken_graph_is_refused_with_every_break():
    broken = graph(
        const("a", 1.0),
        const("a", 2.0),
        node("b", "Identity", "gone:1", T=tf.float32),
        node("c", "Identity", "^a", "a", T=tf.float32),
    )
    with pytest.raises(ConversionError) as error:
        check(broken, after="some_rewrite")
    assert str(error.value) == (
        "after rewrite `some_rewrite` the graph is broken in 3 place(s):\n"
        "  two nodes named a\n"
        "  b reads gone:1, which is not there\n"
        "  c reads a tensor after a control edge\n"
        "This is a fault of the converter, not of the model; nothing was written."
    )


def test_a_cycle_is_refused_unless_a_loop_closes_it():
    loop = graph(
        const("start", 0.0),
        node("merge", "Merge", "start", "next", T=tf.float32, N=2),
        node("next", "NextIteration", "merge", T=tf.float32),
    )
    check(loop, after="x")
    loop.node[2].op = "Identity"
    with pytest.raises(ConversionError, match="cycle through merge\n  cycle through next"):
        check(loop, after="x")
