"""Graphs that are legal and strange: converted rightly, or refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from tests.conversion import strange


def weights(name, shape, initializer=None):
    return tf.get_variable(name, shape, initializer=initializer or tf.random_normal_initializer())


def map_over_rows(x):
    return {"rows": tf.map_fn(lambda row: row * 2, x), "sums": tf.map_fn(tf.reduce_sum, x)}


def loop_with_arrays(x):
    w = weights("w", [3])

    def body(index, state, array):
        state = tf.tanh(state * w + 0.1)
        return index + 1, state, array.write(index, state)

    array = tf.TensorArray(tf.float32, 5)
    _, state, array = tf.while_loop(lambda i, *_: i < 5, body, (0, x[:, 0, 0], array))
    return {"steps": tf.transpose(array.stack(), [1, 0, 2]), "last": state}


def conditional_on_data(x):
    return {"y": tf.cond(tf.reduce_sum(x) > 1e6, lambda: x * 3, lambda: x * 2)}


def defined_function(x):
    from tensorflow.python.framework import function

    @function.Defun(tf.float32)
    def twice(a):
        return tf.tanh(a) * 2

    return {"y": twice(x)}


def noisy_unless_constants_say_no(x):
    kind = tf.constant(2)
    noisy = lambda: tf.nn.dropout(x, rate=0.5)  # noqa: E731
    chosen = [(tf.equal(kind, 1), noisy), (tf.equal(kind, 2), lambda: x * 3)]
    return {"y": tf.case(chosen, default=lambda: x)}


def same_tensor_twice(x):
    y = tf.tanh(x)
    return {"a": y, "b": y}


def input_as_output(x):
    return {"same": x, "other": x + 1}


def two_variables_with_one_suffix(x):
    with tf.variable_scope("a/net"):
        first = weights("w", [3])
    with tf.variable_scope("b/net"):
        second = weights("w", [3])
    return {"y": x * first - second}


def shared_variable(x):
    with tf.variable_scope("tower"):
        x = tf.layers.dense(x, 3, name="dense")
    with tf.variable_scope("tower", reuse=True):
        return {"y": tf.layers.dense(x, 3, name="dense")}


def odd_names(x):
    with tf.name_scope("A-b.c/d_1"):
        y = tf.identity(x, name="we.i-rd")
    return {"a b/c": y + 1, "a:b/c": y - 1, "logits:0": y * 2, "größe": y * 3}


def variable_as_output(x):
    return {"w": weights("w", [4, 2]), "y": x + 1}


def reference_variable_as_output(x):
    with tf.variable_scope("", use_resource=False):
        return {"w": weights("w", [4, 2]), "y": x + 1}


def many_types(x):
    scaled = x[:, 0, 0] * 100
    return {
        "bool": scaled > 0,
        "int64": tf.cast(scaled, tf.int64),
        "int8": tf.cast(scaled, tf.int8),
        "uint8": tf.cast(tf.abs(scaled), tf.uint8),
    }


def asserted(x):
    with tf.control_dependencies([tf.Assert(tf.reduce_all(x < 100), [x])]):
        return {"y": x * 2}


def resized(x):
    return {
        "bilinear": tf.image.resize(x, [9, 11]),
        "corners": tf.image.resize_bilinear(x, [3, 3], align_corners=True),
        "nearest": tf.image.resize_nearest_neighbor(x, [2, 2]),
        "bicubic": tf.image.resize_bicubic(x, [9, 11]),
        "area": tf.image.resize_area(x, [4, 4]),
    }


def random_of_which_only_the_shape_counts(x):
    return {"y": x + tf.ones_like(tf.random_normal([4, 1, 1, 1]))}


def write_beside_the_outputs(x):
    w = weights("w", [3])
    tf.assign_add(w, tf.ones([3]))
    return {"y": x * w}


ON_TPU = (
    map_over_rows,
    loop_with_arrays,
    conditional_on_data,
    defined_function,
    noisy_unless_constants_say_no,
    same_tensor_twice,
    input_as_output,
    two_variables_with_one_suffix,
    shared_variable,
    odd_names,
    variable_as_output,
    reference_variable_as_output,
    many_types,
    asserted,
    resized,
    random_of_which_only_the_shape_counts,
    write_beside_the_outputs,
)
PLAIN = (
    loop_with_arrays,
    noisy_unless_constants_say_no,
    variable_as_output,
    reference_variable_as_output,
)


@pytest.mark.parametrize(
    "compute, tpu",
    [(compute, True) for compute in ON_TPU] + [(compute, False) for compute in PLAIN],
    ids=lambda value: getattr(value, "__name__", None) or ("tpu" if value else "plain"),
)
def test_a_strange_graph_gives_what_its_plain_run_gives(tmp_path, compute, tpu):
    found = strange.bundled(compute, tmp_path, tpu)
    expected = strange.run(compute, tmp_path)
    assert sorted(found) == sorted(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-6)


def sparse_inside(x):
    indices = tf.where(x > 0)
    sparse = tf.SparseTensor(indices, tf.gather_nd(x, indices), tf.shape(x, out_type=tf.int64))
    return {"y": tf.sparse.to_dense(sparse)}


def words_in_and_out(words):
    from tensorflow.contrib import lookup

    table = lookup.index_table_from_tensor(["red", "green"], num_oov_buckets=1)
    ids = table.lookup(words)
    return {"ids": ids, "text": tf.strings.join([words, tf.as_string(ids)], "=")}


def learning_phase(x):
    x = tf.keras.layers.BatchNormalization()(x)
    x = tf.keras.layers.Dropout(0.5)(x)
    training = tf.placeholder_with_default(False, [], name="training")
    return {"y": tf.layers.batch_normalization(x, training=training)}


WORDS = {"words": np.array([b"green", b"mauve", b"red", b"green"], object)}


@pytest.mark.parametrize("num_rows", [4, None], ids=["fixed", "dynamic"])
@pytest.mark.parametrize(
    "compute, inputs",
    [(sparse_inside, None), (words_in_and_out, WORDS), (learning_phase, None)],
    ids=["sparse", "words", "learning phase"],
)
def test_what_a_tpu_does_not_run_converts_from_a_plain_graph(tmp_path, compute, inputs, num_rows):
    found = strange.bundled(compute, tmp_path, False, num_rows, inputs)
    expected = strange.run(compute, tmp_path, inputs)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def called_python(x):
    return {"y": tf.reshape(tf.py_func(lambda a: a * 2, [x], tf.float32), x.shape)}


def random_rows(x):
    return {"y": x + tf.random_uniform([4, 1, 1, 1])}


def drawn_classes(x):
    return {"y": tf.random.categorical(x[:, 0, 0], 1)}


def batch_at_the_end(x):
    return {"y": tf.transpose(x, [1, 2, 3, 0])}


def written_before(x):
    with tf.control_dependencies([tf.assign_add(weights("w", [3]), tf.ones([3]))]):
        return {"y": x * 1.0}


def complex_numbers(x):
    return {"y": tf.complex(x, x)}


@pytest.mark.parametrize(
    "compute, message",
    [
        (called_python, "PyFunc x1"),
        (random_rows, "RandomUniform x1"),
        (drawn_classes, "Multinomial x1"),
        (written_before, "AssignAddVariableOp x1"),
        (batch_at_the_end, r"y: float32\[6, 6, 3, 4\]"),
        (complex_numbers, "'y' has dtype complex64"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_cannot_be_scored_row_by_row_is_refused(tmp_path, compute, message):
    with pytest.raises(InputError, match=message):
        strange.bundled(compute, tmp_path)
    assert not (tmp_path / "bundle").exists()
