"""Which batches a graph may be run in: found by running it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.proof.batch_probe import Batch, Rows, dependence, other_sizes, sizes
from conversion.proof.open_batch import exact, leading
from conversion.proof.synthetic import Draw

ROWS = 4


def rows_of(run, first=None, second=None):
    first = np.arange(8.0).reshape(4, 2) if first is None else first
    second = first + 100 if second is None else second
    return Rows(run, Draw({"x": first}), Draw({"x": second}))


def test_sizes_below_above_and_far_from_the_traced_one_are_tried():
    assert sizes(8) == (1, 3, 7, 9, 16)
    assert sizes(1) == (2, 3)


def alone(feeds):
    return {"y": feeds["x"].sum(axis=1)}


def centred(feeds):
    return {"y": feeds["x"] - feeds["x"].mean(axis=0)}


def by_place(feeds):
    return {"y": feeds["x"][:, 0] + np.arange(len(feeds["x"]))}


def counted_twice(feeds):
    """A row counts twice where its neighbour is the same, as in padding."""
    x = feeds["x"][:, 0]
    return {"y": x * (1 + (x == np.roll(x, -1)))}


@pytest.mark.parametrize(
    "run, message",
    [
        (alone, ""),
        (centred, "output y differed by .* when its row was scored beside other rows"),
        (by_place, "output y differed by .* when its row was scored in another place of the batch"),
        (counted_twice, "when its row was scored in a batch padded with its last row"),
    ],
)
def test_rows_that_change_with_their_batch_are_found_out(run, message):
    found = dependence(run, rows_of(run))
    assert re.search(message, found) if message else found == ""


def test_every_size_that_gives_the_same_rows_is_listed():
    assert other_sizes(alone, rows_of(alone), row_bytes=8) == ((1, 3, 4, 5, 8), "")


def test_the_first_size_that_gives_other_rows_is_named():
    def run(feeds):
        return {"y": feeds["x"][:, 0] / (1 if len(feeds["x"]) % 4 == 0 else 2)}

    good, problem = other_sizes(run, rows_of(run), row_bytes=8)
    assert (good, problem) == (
        (4,),
        "a batch of 1: output y differed by 1 where 0.0011 is rounding",
    )


def test_an_output_without_one_row_per_input_row_is_refused_by_name():
    with pytest.raises(InputError, match=r"4 rows anchors gave shape \[9, 4\]; .*--output"):
        rows_of(lambda feeds: {"anchors": np.zeros((9, 4)), "y": feeds["x"]})


def test_the_dimension_that_holds_the_batch():
    assert leading([8, 16, 4], 4) == 0  # batch x sequence flattened, or the batch itself
    assert leading([3, 4, 5], 4) == 1
    assert exact([8, 4], 4) == 1
    assert leading([3, 5], 4) is None


def test_a_batch_that_depends_on_rows_is_warned_about():
    assert Batch(4, True).warnings() == ()
    assert (
        "change each other's predictions: because" in Batch(4, False, why="because").warnings()[0]
    )


# Graphs of tpu.rewrite, traced with 4 rows ------------------------------------------------


def save(folder, compute):
    """The MetaGraph and checkpoint of `compute(x, w)` under tpu.rewrite; x is [4, 6]."""
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Graph().as_default() as graph, tf.Session(config=config) as session:
        x = tf.placeholder(tf.float32, [ROWS, 6], name="x")
        with tf.variable_scope("", use_resource=True):
            w = tf.get_variable("w", initializer=np.linspace(-1, 1, 36, dtype="f").reshape(6, 6))
            tf.identity(tf.tpu.rewrite(lambda x: compute(x, w), [x])[0], name="out")
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "m.ckpt"), write_meta_graph=False)
        tf.train.export_meta_graph(str(folder / "m.meta"), graph=graph)
    return str(folder / "m.meta")


def converted(folder, compute, **changes):
    source = save(folder, compute)
    asked = {"inputs": {"x": "x"}, "outputs": {"y": "out"}, **changes}
    result = convert(ConvertOptions(source, str(folder / "b"), **asked))
    assert result["parity"] is None or result["parity"]["passed"]
    return Bundle.open(str(folder / "b")).manifest


def plain(x, w):
    return tf.nn.softmax(tf.matmul(x, w))


def heads(x, w):
    """As transformers do: [B, 6] -> [B * 2, 3] -> [B, 3, 2] -> flat again."""
    x = tf.reshape(tf.matmul(x, w), [ROWS * 2, 3])
    x = tf.transpose(tf.reshape(tf.tanh(x), [ROWS, 2, 3]), [0, 2, 1])
    return tf.reshape(x, [ROWS, -1])


def recurrent(x, w):
    """A zero state, a fill and a slice of the batch's size."""
    state = tf.zeros([ROWS, 6]) + tf.fill([ROWS, 1], 0.5) + tf.slice(x, [0, 0], [ROWS, 1])
    _, state = tf.while_loop(
        lambda i, s: i < 3, lambda i, s: (i + 1, tf.tanh(tf.matmul(s, w) + x)), [0, state]
    )
    return tf.matmul(state, w)  # the rank of a loop's result is not inferred again


def time_major(x, w):
    """The batch is the second dimension of a reshape whose first one is a multiple of it."""
    x = tf.tile(tf.expand_dims(tf.matmul(x, w), 0), [8, 1, 1])
    return tf.reduce_mean(tf.reshape(x, [8, ROWS, 3, 2]), axis=[0, 2])


def per_row(x, w):
    """tf.map_fn counts the rows, numbers them, and makes arrays of as many elements."""
    return tf.map_fn(lambda row: tf.reduce_sum(row * w, axis=1), x) + tf.matmul(x, w)


def inside_a_loop(x, w):
    """A reshape and a constant with the batch in them, within the loop; time comes first."""

    def step(i, s):
        s = tf.reshape(tf.tanh(tf.matmul(s[0], w)), [1, ROWS, 6])
        return i + 1, tf.where(tf.fill([1, ROWS, 6], True), s, tf.zeros([1, ROWS, 6]))

    _, s = tf.while_loop(lambda i, s: i < 3, step, [0, tf.expand_dims(x, 0)])
    return tf.reshape(s, [ROWS, 6])


@pytest.mark.parametrize(
    "compute, opened",
    [
        (plain, "inputs"),
        (heads, "inputs and reshapes"),
        (time_major, "inputs and reshapes of any dimension"),
        (recurrent, "inputs, reshapes, sizes and constants"),
        (inside_a_loop, "inputs, reshapes, sizes and constants"),
        (per_row, "inputs, reshapes, sizes, constants and counts"),
    ],
)
def test_a_traced_batch_is_opened_where_every_size_gives_the_same_rows(tmp_path, compute, opened):
    manifest = converted(tmp_path, compute)
    assert manifest["batch"] == {
        "kind": "dynamic",
        "rows": None,
        "rows_independent": True,
        "probed": [1, 3, 4, 5, 8],
        "why": f"traced with 4 rows; the same rows in other sizes with {opened} opened",
    }
    assert manifest["signature"]["inputs"]["x"]["shape"] == [None, 6]
    assert manifest["signature"]["outputs"]["y"]["shape"][0] is None


def over_the_batch(x, w):
    return tf.nn.softmax(tf.matmul(x, w), axis=0)


def normalised(x, w):
    return plain((x - tf.reduce_mean(x, axis=0)), w)


@pytest.mark.parametrize("compute", [over_the_batch, normalised])
def test_a_model_whose_rows_change_each_other_stays_fixed_and_says_so(tmp_path, compute):
    found = converted(tmp_path, compute)["batch"]
    assert (found["kind"], found["rows"], found["rows_independent"]) == ("fixed", 4, False)
    assert "when its row was scored beside other rows" in found["why"]


def threshold(x, w):
    """Every row is doubled where one is large: only large neighbours show it."""
    return tf.matmul(x, w) * tf.where(tf.reduce_max(x) > 6.0, 2.0, 1.0)


def early_exit(x, w):
    def large(h):
        return tf.reduce_max(tf.abs(h)) > 0.5

    return tf.while_loop(large, lambda h: h * 0.7, [tf.matmul(x, w)])


def moments_then_class(x, w):
    y = tf.matmul(x, w)
    return tf.argmax(y - tf.reduce_mean(y, axis=0), axis=1, output_type=tf.int32)


@pytest.mark.parametrize("compute", [threshold, early_exit, moments_then_class])
def test_an_influence_that_few_batches_show_is_found(tmp_path, compute):
    found = converted(tmp_path, compute)["batch"]
    assert (found["kind"], found["rows"], found["rows_independent"]) == ("fixed", 4, False)


def dead(x, w):
    y = tf.nn.relu(tf.matmul(x, w) - 1e4)
    return y - tf.reduce_mean(y, axis=0)


def test_rows_that_all_give_the_same_show_nothing(tmp_path):
    found = converted(tmp_path, dead)["batch"]
    assert (found["kind"], found["rows"], found["rows_independent"]) == ("fixed", 4, None)
    assert found["why"] == "every row gave the same outputs for these inputs"
    assert "is not known" in Batch(4, why=found["why"]).warnings()[0]


def test_other_values_in_other_sizes_leave_it_open_whether_rows_matter(tmp_path):
    counted = converted(tmp_path, lambda x, w: tf.matmul(x, w) * tf.reduce_sum(x * 0 + 1))
    found = counted["batch"]
    assert (found["kind"], found["rows"], found["rows_independent"]) == ("fixed", 4, None)
    assert "output y differed by" in found["why"]
    assert "is not known: with inputs opened" in Batch(4, None, (4,), found["why"]).warnings()[0]


def test_equal_rows_of_the_user_show_nothing():
    assert rows_of(alone, np.ones((4, 2)), np.ones((4, 2))).all_same()
    assert not rows_of(alone).all_same()


def test_padding_to_the_longest_row_of_a_batch_is_found():
    def padded(feeds):
        longest = (feeds["x"] > 0).sum(axis=1).max()
        return {"y": feeds["x"].sum(axis=1) / max(longest, 1.0)}

    ids = np.arange(1, 33).reshape(4, 8)
    rows = rows_of(padded, ids)
    assert "beside" in dependence(padded, rows)


def unrolled(x, w):
    """One computation per row: nothing can open it, and its rows do not change each other."""
    return tf.stack([tf.reduce_sum(row * w, axis=1) for row in tf.unstack(x)])


def test_a_batch_that_cannot_be_opened_stays_fixed_with_the_reason(tmp_path):
    found = converted(tmp_path, unrolled)["batch"]
    assert (found["kind"], found["rows"], found["rows_independent"]) == ("fixed", 4, True)
    assert found["why"].startswith("with inputs opened: ")


def test_nothing_is_run_where_no_reference_is_wanted(tmp_path):
    manifest = converted(tmp_path, plain, reference="none")
    assert (manifest["batch"]["kind"], manifest["batch"]["probed"]) == ("fixed", [])
    assert manifest["parity"] is None
    assert manifest["unproven"] == "nothing was run, as --reference none asks"


def save_model(folder, shape, compute):
    """A SavedModel {serve} with the input x of a shape and the outputs of `compute(x)`."""
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, shape, name="x")
        tf.get_variable("global_step", initializer=0)
        session.run(tf.global_variables_initializer())
        tf.saved_model.simple_save(session, str(folder / "m"), {"x": x}, compute(x))
    return ConvertOptions(str(folder / "m"), str(folder / "b"))


MEAN = ([4, 2], tf.reduce_mean, "output y: float32[] is one value for all rows")
TURNED = ([4, 2], tf.transpose, "output y: float32[2, 4] has 2 rows for a batch of 4")
TURNED_OPEN = ([None, 2], tf.transpose, "for a batch of 3 rows y gave shape [2, 3]")


@pytest.mark.parametrize("shape, compute, message", [MEAN, TURNED, TURNED_OPEN])
def test_an_output_that_is_no_row_is_refused_with_the_way_out(tmp_path, shape, compute, message):
    asked = save_model(tmp_path, shape, lambda x: {"y": compute(x), "z": x * 2})
    with pytest.raises(InputError) as error:
        convert(asked)
    assert message in str(error.value) and "--output" in str(error.value)


def test_outputs_that_no_input_changes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no output depends on an input: y"):
        convert(save_model(tmp_path, [4, 2], lambda x: {"y": tf.zeros([4])}))
