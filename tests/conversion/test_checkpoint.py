"""Checkpoints: found, and copied variable by variable."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion import checkpoint
from conversion.checkpoint import copy_variables, find_checkpoint, read_specs
from conversion.names import Assignment, GraphVariable, VariableSpec


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
    return Assignment(VariableSpec(source, "bfloat16" if source == "c" else dtype, shape),
                      variable, target)  # fmt: skip


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


@pytest.mark.parametrize("shard_bytes, data_files", [(1 << 20, 1), (1, 3)])
def test_values_are_copied_bit_for_bit_into_as_many_files_as_memory_asks_for(
    saved, tmp_path, monkeypatch, shard_bytes, data_files
):
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", shard_bytes)
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
