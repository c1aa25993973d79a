"""Graphs that an infeed or a dataset feeds, with their tensors named as inputs."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError, UnsupportedOpsError
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.graphs.candidates import candidates
from conversion.options import ConvertOptions

F32 = tf.float32
ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def saved(folder, build):
    """A MetaGraph and a checkpoint of w = [1, 2, 3]."""
    with tf.Graph().as_default():
        with tf.variable_scope("", use_resource=True):
            weight = tf.get_variable("w", initializer=[1.0, 2.0, 3.0])
        build(weight)
        tf.train.export_meta_graph(str(folder / "model.meta"))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("w", initializer=[1.0, 2.0, 3.0])
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(folder / "model"), write_meta_graph=False)
    return str(folder / "model.meta")


def dequeued():
    return tf.raw_ops.InfeedDequeueTuple(
        dtypes=[F32, F32], shapes=[tf.TensorShape([2, 3]), tf.TensorShape([2, 3])]
    )


def of_infeed(weight):
    def infer():
        x, bias = dequeued()
        y = x * weight + bias
        done = tf.raw_ops.OutfeedEnqueueTuple(inputs=[y])
        with tf.control_dependencies([done]):
            return tf.identity(y)

    tf.identity(tf.tpu.rewrite(infer)[0], name="y")


def scored(folder, path, inputs, feeds):
    convert(ConvertOptions(path, str(folder / "bundle"), inputs=inputs, outputs={"y": "y:0"}))
    scorer = Scorer.restore(Bundle.open(str(folder / "bundle")), None)
    try:
        return scorer.score(feeds)["y"].tolist()
    finally:
        scorer.close()


def test_an_infeed_whose_tensors_are_named_is_a_pair_of_inputs(tmp_path):
    path = saved(tmp_path, of_infeed)
    inputs = {"x": "InfeedDequeueTuple:0", "bias": "InfeedDequeueTuple:1"}
    found = scored(tmp_path, path, inputs, {"x": ROWS, "bias": ROWS * 10})
    assert found == [[0, 12, 26], [33, 48, 65]]


def test_an_infeed_of_which_a_tensor_is_not_named_is_refused(tmp_path):
    path = saved(tmp_path, of_infeed)
    with pytest.raises(UnsupportedOpsError, match="InfeedDequeueTuple x1, such as InfeedDeq"):
        scored(tmp_path, path, {"x": "InfeedDequeueTuple:0"}, {"x": ROWS})


def test_an_infeed_is_among_the_candidates():
    with tf.Graph().as_default() as graph:
        of_infeed(tf.ones([3]))
    inputs, _ = candidates(graph.as_graph_def())
    assert inputs == {
        "InfeedDequeueTuple": "InfeedDequeueTuple:0",
        "InfeedDequeueTuple_1": "InfeedDequeueTuple:1",
    }


def test_a_tensor_of_a_dataset_is_an_input_without_the_dataset(tmp_path):
    def build(weight):
        rows = tf.data.Dataset.from_tensors(ROWS).make_one_shot_iterator().get_next()
        tf.identity(rows * weight, name="y")

    path = saved(tmp_path, build)
    found = scored(tmp_path, path, {"x": "IteratorGetNext:0"}, {"x": ROWS})
    assert found == [[0, 2, 6], [3, 8, 15]]


def test_an_infeed_inside_of_a_loop_is_refused(tmp_path):
    def build(weight):
        def infer():
            def body(i, y):
                return i + 1, y + dequeued()[0] * weight

            return tf.while_loop(lambda i, _: i < 3, body, [0, tf.zeros([2, 3])])[1]

        tf.identity(tf.tpu.rewrite(infer)[0], name="y")

    path = saved(tmp_path, build)
    with pytest.raises(
        InputError, match="is inside of loop while/while_context: one value in each"
    ):
        scored(tmp_path, path, {"x": "while/InfeedDequeueTuple:0"}, {"x": ROWS})


def test_an_infeed_of_several_cores_is_refused(tmp_path):
    def build(weight):
        outputs = tf.tpu.replicate(lambda: dequeued()[0] * weight, [[], []])
        tf.identity(outputs[0][0], name="y")

    path = saved(tmp_path, build)
    with pytest.raises(InputError, match="inside of a cluster: 2 cores have one each"):
        scored(tmp_path, path, {"x": "InfeedDequeueTuple:0"}, {"x": ROWS})


def test_the_shards_of_several_cores_are_offered_as_the_batch_that_they_make():
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(F32, [4, 3], name="x")
        tf.tpu.batch_parallel(lambda x: [x * 2.0, x * 3.0], [x], num_shards=2)
    assert candidates(graph.as_graph_def()) == (
        {"x": "x:0"},
        {"concat": "concat:0", "concat_1": "concat_1:0"},
    )
