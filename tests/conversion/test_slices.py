"""Partitioned variables: read from the index, and copied to graphs that cut them otherwise."""

from __future__ import annotations

import itertools
import json
import os

import numpy as np
import pytest

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.inspection import inspect
from conversion.lowering import Request
from conversion.source import open_source
from conversion.weights.checkpoint import read_specs
from conversion.weights.matching import assign, match
from conversion.weights.names import NO_RULES, Rename, Rules
from conversion.weights.slices import (
    Slice,
    axis_of,
    covers,
    parse_slice,
    parts_along_axis,
    stored_slices,
)
from conversion.weights.specs import GraphVariable, VariableSpec
from conversion.weights.variable_copy import copy_variables
from conversion.weights.variables import graph_variables, saver_keys, saver_parts

TABLE = np.arange(40, dtype=np.float32).reshape(10, 4)


def build(num_parts, use_resource, axis=0):
    """`m/emb` [10, 4] in parts; Adam and an average over it."""
    cut = tf.fixed_size_partitioner(num_parts, axis) if num_parts > 1 else None
    with tf.variable_scope("m", use_resource=use_resource):
        return tf.get_variable("emb", [10, 4], partitioner=cut)


def save(folder, num_parts, use_resource, axis=0, optimizer=False):
    """A checkpoint of `m/emb` in parts, whose value is TABLE, its average TABLE + 100."""
    with tf.Graph().as_default(), tf.Session() as session:
        table = build(num_parts, use_resource, axis)
        if optimizer:
            with tf.variable_scope("m", use_resource=use_resource):
                tf.train.AdamOptimizer().minimize(tf.reduce_sum(tf.convert_to_tensor(table)))
                average = tf.train.ExponentialMovingAverage(0.9)
                average.apply(list(table) if num_parts > 1 else [table])
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            info = variable._get_save_slice_info()
            if "emb" in variable.op.name and "Adam" not in variable.op.name:
                box = tuple(slice(None) for _ in range(2))
                if info:
                    pairs = zip(info.var_offset, info.var_shape)
                    box = tuple(slice(start, start + size) for start, size in pairs)
                more = 100 if "Average" in variable.op.name else 0
                session.run(variable.assign(TABLE[box] + more))
        return tf.train.Saver().save(session, str(folder / "m.ckpt"), write_meta_graph=False)


def graph_with(num_parts, use_resource, axis=0):
    """The variables of a graph whose saver cuts the table so."""
    with tf.Graph().as_default() as made:
        build(num_parts, use_resource, axis)
        saver = tf.train.Saver()
        meta_graph = tf.train.export_meta_graph(graph=made, saver_def=saver.as_saver_def())
    for node in meta_graph.graph_def.node:
        if node.op == "VariableV2":  # as surgery makes it
            node.op = "VarHandleOp"
    keys, parts = saver_keys(meta_graph), saver_parts(meta_graph)
    return graph_variables(meta_graph.graph_def, keys, parts)


def copied(prefix, graph, folder, rules=NO_RULES, weights=None):
    mapping = assign(read_specs(prefix), graph, rules, weights)
    copy_variables(prefix, mapping.assignments, str(folder / "out" / "v"))
    reader = tf.train.load_checkpoint(str(folder / "out" / "v"))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def whole(values, axis=0):
    """The table again, from its parts in order."""
    return np.concatenate([values[name] for name in sorted(values)], axis)


@pytest.mark.parametrize(
    "saved_parts, read_parts, use_resource", itertools.product([1, 3], [1, 2], [False, True])
)
def test_a_table_cut_either_way_is_read_either_way(tmp_path, saved_parts, read_parts, use_resource):
    prefix = save(tmp_path, saved_parts, use_resource)
    values = copied(prefix, graph_with(read_parts, use_resource), tmp_path)
    assert len(values) == read_parts
    assert whole(values).tolist() == TABLE.tolist()


def test_a_table_can_be_cut_along_another_axis(tmp_path):
    prefix = save(tmp_path, 2, True, axis=1)
    assert [str(one) for one in read_specs(prefix)[0].slices] == [
        "10 4 0,10:0,2",
        "10 4 0,10:2,2",
    ]
    values = copied(prefix, graph_with(3, True), tmp_path)
    assert whole(values).tolist() == TABLE.tolist()


def test_parts_without_a_saver_are_cut_as_their_shapes_say(tmp_path):
    prefix = save(tmp_path, 1, True)
    graph = [
        GraphVariable(VariableSpec(name, "float32", shape), name)
        for name, shape in [("m/emb/part_1", (3, 4)), ("m/emb/part_0", (7, 4))]
    ]
    rules = Rules(renames=(Rename("m/(.*)", r"g/\1"),))
    values = copied(prefix, graph, tmp_path, rules)
    assert sorted(values) == ["g/emb/part_0", "g/emb/part_1"]
    assert values["g/emb/part_0"].tolist() == TABLE[:7].tolist()
    assert values["g/emb/part_1"].tolist() == TABLE[7:].tolist()


def test_slices_are_listed_in_what_inspection_prints(tmp_path):
    prefix = save(tmp_path, 3, True)
    shown = inspect(open_source(prefix), Request({}, {})).to_json()["variables"]
    assert json.loads(json.dumps(shown))[0] == {
        "name": "m/emb",
        "dtype": "float32",
        "shape": [10, 4],
        "slices": ["10 4 0,4:0,4", "10 4 4,3:0,4", "10 4 7,3:0,4"],
        "fate": "model variable",
    }


def test_a_checkpoint_alone_that_lacks_a_file_says_so_first(tmp_path):
    prefix = save(tmp_path, 1, True)
    os.remove(prefix + ".data-00000-of-00001")
    problems = inspect(open_source(prefix), Request({}, {})).problems
    assert "m.ckpt.data-00000-of-00001" in problems[0] and len(problems) == 2


def test_parts_that_do_not_make_up_the_table_are_refused(tmp_path):
    prefix = save(tmp_path, 1, True)
    graph = [
        GraphVariable(VariableSpec(f"m/emb/part_{i}", "float32", (3, 4)), f"m/emb/part_{i}")
        for i in range(2)
    ]
    problem = match(read_specs(prefix), graph, NO_RULES)[1]
    assert problem.count("no source for") == 2 and "- m/emb/part_1  float32[3, 4]" in problem


def test_slots_and_averages_of_parts_are_recognised_and_dropped(tmp_path):
    """Inside a variable_scope they lie under `m/emb/<part>/`, one slice each."""
    prefix = save(tmp_path, 3, True, optimizer=True)
    mapping = assign(read_specs(prefix), graph_with(1, True), NO_RULES, "raw")
    reasons = {drop.name: drop.reason for drop in mapping.drops}
    assert reasons["m/emb/2/Adam_1"] == "optimizer slot (Adam)"
    assert "--weights raw" in reasons["m/emb/0/ExponentialMovingAverage"]


@pytest.mark.parametrize("read_parts", [1, 3])
def test_averages_of_parts_are_put_together_or_taken_each(tmp_path, read_parts):
    prefix = save(tmp_path, 3, True, optimizer=True)
    values = copied(prefix, graph_with(read_parts, True), tmp_path, weights="ema")
    assert whole(values).tolist() == (TABLE + 100).tolist()


def test_averages_of_eleven_parts_of_which_two_share_a_name_are_put_together(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope("m", use_resource=True):
            table = tf.get_variable("t", [11], partitioner=tf.fixed_size_partitioner(11))
            average = tf.train.ExponentialMovingAverage(0.9)
            average.apply(list(table))
        session.run(tf.global_variables_initializer())
        for index, part in enumerate(table):
            session.run(average.average(part).assign([index]))
        prefix = tf.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    shared = {spec.name: len(spec.slices) for spec in read_specs(prefix)}
    assert shared[f"m/t/0/{average.name}"] == 2
    graph = [GraphVariable(VariableSpec("m/t", "float32", (11,)), "m/t")]
    assert copied(prefix, graph, tmp_path, weights="ema")["m/t"].tolist() == list(range(11))


def test_averages_of_parts_cut_otherwise_are_refused(tmp_path):
    prefix = save(tmp_path, 3, True, optimizer=True)
    problem = match(read_specs(prefix), graph_with(2, True), NO_RULES, "ema")[1]
    assert "m/emb/part_0: which of m/emb/0/ExponentialMovingAverage, " in problem


def test_a_slice_is_spelled_as_tensorflow_does():
    assert str(Slice((10, 4), (4, 0), (3, 4))) == "10 4 4,3:0,4"
    assert parse_slice("10 4 4,3:0,4") == Slice((10, 4), (4, 0), (3, 4))
    assert parse_slice("10 4 -:1,2") == Slice((10, 4), (0, 1), (10, 2))
    with pytest.raises(ValueError, match="is not a shape_and_slice"):
        parse_slice("10 4 0,4")


def test_slices_cover_a_tensor_or_not():
    first, second = Slice((5, 2), (0, 0), (3, 2)), Slice((5, 2), (3, 0), (2, 2))
    assert covers([first, second]) and not covers([second]) and not covers([])
    assert axis_of([second, first]) == 0 and axis_of([second]) == -1
    assert parts_along_axis((5, 2), [(3, 2), (2, 2)]) == (first, second)
    assert parts_along_axis((5, 2), [(3, 2), (3, 2)]) == ()


@pytest.mark.parametrize("num_rows, num_parts", [(200, 3), (9000, 2), (3_000_000, 2)])
def test_numbers_of_every_length_are_read_from_the_index(tmp_path, num_rows, num_parts):
    """OrderedCode takes a byte more from 64, 8,192 and 1,048,576 on."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("t", [num_rows], partitioner=tf.fixed_size_partitioner(num_parts))
        tf.get_variable("z", [])
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    table, scalar = read_specs(prefix)
    assert scalar.slices == ()
    assert len(table.slices) == num_parts and covers(table.slices)
    assert axis_of(table.slices) == 0


@pytest.mark.parametrize("text", [b"\0m", b"\0m\0\1\1", b"\0m\0\1\1\1\x80\x84 (DT_FLOAT) [4]\n"])
def test_an_index_that_reads_otherwise_is_refused(text):
    with pytest.raises(InputError, match="list of slices cannot be read"):
        stored_slices(text, {"m": (4, 4)})
