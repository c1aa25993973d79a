"""Checkpoints: found, and copied variable by variable."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.weights import variable_copy
from conversion.weights.checkpoint import (
    checkpoint_files,
    find_checkpoint,
    read_specs,
    require_files,
)
from conversion.weights.specs import Assignment, GraphVariable, Piece, VariableSpec
from conversion.weights.steps import Cast, Concat, Reshape, Transpose, UnpermuteMod
from conversion.weights.variable_copy import copy_variables


@pytest.fixture
def saved(tmp_path):
    """A checkpoint with a float32, an int64 and a bfloat16 variable."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("a", initializer=np.arange(6, dtype=np.float32).reshape(2, 3))
        tf.get_variable("b", initializer=np.int64(2**40))
        tf.get_variable("c", initializer=tf.cast([1.5, -2.0], tf.bfloat16))
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)


def assignment(source, target, dtype, shape):
    variable = GraphVariable(VariableSpec(source, dtype, shape), source)
    stored = VariableSpec(source, "bfloat16" if source == "c" else dtype, shape)
    return Assignment((Piece(stored),), variable, target)


ALL = [
    assignment("a", "x/a", "float32", (2, 3)),
    assignment("b", "x/b", "int64", ()),
    assignment("c", "x/c", "float32", (2,)),
]


def test_variables_are_listed_with_dtype_and_shape(saved):
    assert read_specs(saved) == (
        VariableSpec("a", "float32", (2, 3)),
        VariableSpec("b", "int64", ()),
        VariableSpec("c", "bfloat16", (2,)),
    )


@pytest.mark.parametrize("group_bytes, data_files", [(1 << 20, 1), (1, 3)])
def test_values_are_copied_bit_for_bit_into_as_many_files_as_memory_asks_for(
    saved, tmp_path, monkeypatch, group_bytes, data_files
):
    monkeypatch.setattr(variable_copy, "GROUP_BYTES", group_bytes)
    target = str(tmp_path / "out" / "variables")
    copy_variables(saved, ALL, target)
    reader = tf.train.load_checkpoint(target)
    assert sorted(reader.get_variable_to_shape_map()) == ["x/a", "x/b", "x/c"]
    expected = tf.train.load_checkpoint(saved).get_tensor("a")
    assert reader.get_tensor("x/a").tobytes() == expected.tobytes()
    assert reader.get_tensor("x/b") == 2**40
    assert reader.get_tensor("x/c").dtype == np.float32
    assert reader.get_tensor("x/c").tolist() == [1.5, -2.0]
    files = sorted(os.listdir(str(tmp_path / "out")))
    assert files == [f"variables.data-{i:05d}-of-{data_files:05d}" for i in range(data_files)] + [
        "variables.index"
    ]


def made(saved, tmp_path, steps, names, shape, dtype="float32"):
    """What the steps give, as it lies in the copy."""
    stored = {spec.name: spec for spec in read_specs(saved)}
    variable = GraphVariable(VariableSpec("w", dtype, shape), "w")
    pieces = tuple(Piece.of(stored[name]) for name in names)
    copy_variables(saved, [Assignment(pieces, variable, "w", steps)], str(tmp_path / "out" / "v"))
    return tf.train.load_checkpoint(str(tmp_path / "out" / "v")).get_tensor("w").tolist()


@pytest.mark.parametrize(
    "steps, names, shape, expected",
    [
        ((Transpose((1, 0)),), ["a"], (3, 2), [[0, 3], [1, 4], [2, 5]]),
        ((Reshape((3, -1)),), ["a"], (3, 2), [[0, 1], [2, 3], [4, 5]]),
        ((Concat(0),), ["a", "a"], (4, 3), [[0, 1, 2], [3, 4, 5]] * 2),
        ((Concat(1),), ["a", "a"], (2, 6), [[0, 1, 2] * 2, [3, 4, 5] * 2]),
        ((Cast("float32"), Reshape((1,))), ["b"], (1,), [2**40]),
    ],
)
def test_steps_make_the_value_while_it_is_copied(saved, tmp_path, steps, names, shape, expected):
    assert made(saved, tmp_path, steps, names, shape) == expected


@pytest.mark.parametrize("hosts", [1, 2, 3, 7])
def test_rows_that_a_tpu_embedding_spread_over_hosts_come_back_in_their_order(tmp_path, hosts):
    ids = np.arange(7, dtype=np.float32)
    spread = np.concatenate([ids[host::hosts] for host in range(hosts)])  # as the hosts hold them
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("table", initializer=spread.reshape(7, 1))
        session.run(tf.global_variables_initializer())
        saved = tf.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
    found = made(saved, tmp_path, (UnpermuteMod(hosts),), ["table"], (7, 1))
    assert found == [[0], [1], [2], [3], [4], [5], [6]]


def test_a_damaged_value_stops_the_copy_and_is_named(saved, tmp_path):
    data = pathlib.Path(saved + ".data-00000-of-00001")
    whole = bytearray(data.read_bytes())
    whole[0] ^= 1
    data.write_bytes(whole)
    with pytest.raises(InputError, match=r"cannot copy a, b, c: .*[Cc]hecksum"):
        copy_variables(saved, ALL, str(tmp_path / "out" / "v"))


def test_missing_data_files_are_named_before_any_work(tmp_path):
    prefix = str(tmp_path / "m")
    for end in (".index", ".data-00000-of-00003", ".data-00002-of-00003"):
        (tmp_path / ("m" + end)).write_bytes(b"")
    with pytest.raises(InputError, match=r"missing are\n  .*m\.data-00001-of-00003\nCopy"):
        require_files(prefix)
    (tmp_path / "m.data-00001-of-00003").write_bytes(b"")
    require_files(prefix)


def test_an_index_alone_is_not_a_checkpoint(tmp_path):
    (tmp_path / "m.index").write_bytes(b"")
    with pytest.raises(InputError, match=r"m\.data-00000-of-00001"):
        require_files(str(tmp_path / "m"))


def test_a_checkpoint_of_the_first_format_is_found_listed_and_copied(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("a", initializer=np.arange(6, dtype=np.float32).reshape(2, 3))
        session.run(tf.global_variables_initializer())
        saver = tf.train.Saver(write_version=tf.train.SaverDef.V1)
        prefix = saver.save(session, str(tmp_path / "model.ckpt"), global_step=7)
    assert find_checkpoint(str(tmp_path)) == find_checkpoint(prefix) == prefix
    assert checkpoint_files(prefix) == [prefix]
    require_files(prefix)
    assert read_specs(prefix) == (VariableSpec("a", "float32", (2, 3)),)
    assert made(prefix, tmp_path, (), ["a"], (2, 3)) == [[0, 1, 2], [3, 4, 5]]


def test_of_several_checkpoints_the_one_of_the_last_step_is_taken(tmp_path):
    for name in ("model.ckpt-90", "model.ckpt-1000", "a_much_longer_name.ckpt"):
        (tmp_path / (name + ".index")).write_bytes(b"")
    assert find_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-1000")


@pytest.mark.parametrize("end", ["", ".index", ".data-00000-of-00001", ".meta"])
def test_any_file_of_a_checkpoint_names_it(saved, end):
    assert find_checkpoint(saved + end) == saved


def test_nothing_is_found_where_nothing_is(tmp_path):
    assert find_checkpoint(str(tmp_path)) is None
    assert find_checkpoint(str(tmp_path / "model.ckpt-1")) is None


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "m.index").write_bytes(b"not an index")
    with pytest.raises(InputError, match="cannot read checkpoint"):
        read_specs(str(tmp_path / "m"))
