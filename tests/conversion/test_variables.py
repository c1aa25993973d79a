"""Variables of a graph: found, matched with the graph's own saver, renamed."""

from __future__ import annotations

import pytest

from batchinfer.errors import MappingError
from batchinfer.tf1 import tf
from conversion.weights.names import GraphVariable, VariableSpec
from conversion.weights.variables import graph_variables, rename_variables, saver_keys
from tests.conversion.graphs import graph, lines, node


def shape(*dims):
    return tf.AttrValue(shape=tf.TensorShape(dims).as_proto())


def handle(name, shared_name=b"", dims=(2,)):
    return node(name, "VarHandleOp", dtype=tf.float32, shape=shape(*dims), shared_name=shared_name)


def test_a_variable_is_known_by_the_name_it_is_shared_under():
    looked_at = graph(handle("a"), handle("b_1", b"b"), handle("b_2", b"b"))
    assert graph_variables(looked_at, {"a": "k"}) == (
        GraphVariable(VariableSpec("a", "float32", (2,)), "k"),
        GraphVariable(VariableSpec("b", "float32", (2,)), "b"),
    )


def test_two_handles_of_one_variable_have_to_agree():
    looked_at = graph(handle("a", b"v"), handle("b", b"v", dims=(3,)))
    with pytest.raises(MappingError, match=r"v  float32\[2\] and as v  float32\[3\]"):
        graph_variables(looked_at, {})


def test_the_keys_come_from_the_restore_ops_of_the_saver():
    with tf.Graph().as_default() as made:
        w = tf.get_variable("w", [2], use_resource=True)
        v = tf.get_variable("v", [2], use_resource=False)
        saver = tf.train.Saver({"w/ExponentialMovingAverage": w, "v": v})
        meta_graph = tf.train.export_meta_graph(graph=made, saver_def=saver.as_saver_def())
    assert saver_keys(meta_graph) == {"w": "w/ExponentialMovingAverage", "v": "v"}


def test_a_rename_changes_handles_shared_names_and_what_refers_to_them():
    before = graph(
        handle("tpu/w", b"tpu/w"),
        handle("again", b"tpu/w"),
        node("read", "ReadVariableOp", "tpu/w", "^tpu/w", _class=[b"loc:@tpu/w"], dtype=tf.float32),
    )
    after = rename_variables(before, {"tpu/w": "gpu/w"})
    assert lines(after) == [
        "gpu/w = VarHandleOp()",
        "again = VarHandleOp()",
        "read = ReadVariableOp(gpu/w, ^gpu/w)",
    ]
    assert [one.attr["shared_name"].s for one in after.node[:2]] == [b"gpu/w", b"gpu/w"]
    assert list(after.node[2].attr["_class"].list.s) == [b"loc:@gpu/w"]


def test_variables_can_swap_their_names_but_not_take_another_nodes():
    before = graph(handle("a"), handle("b"), node("c", "NoOp"))
    assert lines(rename_variables(before, {"a": "b", "b": "a"}))[:2] == [
        "b = VarHandleOp()",
        "a = VarHandleOp()",
    ]
    with pytest.raises(MappingError, match="have the name of another node of the graph: c"):
        rename_variables(before, {"a": "c", "b": "b"})
