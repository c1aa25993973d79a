"""What is said of a training graph and a bare checkpoint: what is inside, what would work."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from batchinfer.errors import InputError, UnsupportedOpsError
from batchinfer.tf1 import tf
from conversion.contents import as_lines, read_contents
from conversion.convert import convert
from conversion.inspection import inspect
from conversion.lowering import Request
from conversion.options import ConvertOptions
from conversion.source import open_source


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training .meta with an infeed, and its checkpoint: one variable, Adam, a moving average."""
    folder = str(tmp_path_factory.mktemp("training"))
    prefix = os.path.join(folder, "model.ckpt-7")
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        image, label = tf.raw_ops.InfeedDequeueTuple(
            dtypes=[tf.float32, tf.int32], shapes=[[16, 4], [16]]
        )
        w = tf.get_variable("w", [4, 3], use_resource=True)
        average = tf.train.ExponentialMovingAverage(0.9).apply([w])
        loss = tf.losses.sparse_softmax_cross_entropy(label, image @ w)
        step = tf.train.get_or_create_global_step()
        tf.train.AdamOptimizer().minimize(loss, step)
        tf.raw_ops.OutfeedEnqueueTuple(inputs=[loss])
        tf.raw_ops.TPUReplicateMetadata(num_replicas=8)
        session.run(tf.global_variables_initializer())
        session.run(average)
        tf.train.Saver().save(session, prefix)
    return prefix


def test_a_training_graph_is_described_and_answered_with_the_command_that_would_work(trained):
    with pytest.raises(InputError) as error:
        convert(ConvertOptions(trained + ".meta", os.path.dirname(trained) + "/b"))
    text = str(error.value)
    assert "is a training graph: it holds an optimizer" in text
    assert "fed to each core    float32[16, 4], int32[16]" in text
    assert "taken from it       float32[]" in text
    assert "cores               8" in text
    assert "model variables     1 (0.0 MB)" in text
    assert f"jobs/convert.py {trained} --model-fn PACKAGE.MODULE:model_fn --params" in text
    assert "    NAME_0: float32[?, 4]\n    NAME_1: int32[?]" in text
    assert not os.path.exists(os.path.dirname(trained) + "/b")


def test_a_graph_that_is_looked_at_stays_as_it_is(trained):
    source = open_source(trained + ".meta")
    before = source.meta_graph.SerializeToString(deterministic=True)
    inspect(source, Request({}, {}))
    assert source.meta_graph.SerializeToString(deterministic=True) == before


def test_a_training_graph_without_its_checkpoint_is_described_as_well(trained, tmp_path):
    alone = tmp_path / "alone.meta"
    with open(trained + ".meta", "rb") as file:
        alone.write_bytes(file.read())
    with pytest.raises(InputError, match="is a training graph") as error:
        convert(ConvertOptions(str(alone), str(tmp_path / "b")))
    assert "jobs/convert.py CHECKPOINT --model-fn" in str(error.value)


def test_a_checkpoint_alone_is_described_and_answered_with_the_command(trained, tmp_path):
    with pytest.raises(InputError) as error:
        convert(ConvertOptions(trained, str(tmp_path / "b")))
    text = str(error.value)
    assert "is a checkpoint alone, which says nothing about the graph" in text
    assert "not the model       1 x training step" in text
    assert "features.yaml that names" not in text  # nothing is known of them


def test_the_contents_of_a_graph_without_a_tpu_are_its_variables(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("table", initializer=np.zeros([1000, 250], np.float32))
        session.run(tf.global_variables_initializer())
        prefix = tf.train.Saver().save(session, str(tmp_path / "m.ckpt"), write_meta_graph=False)
    assert as_lines(read_contents(open_source(prefix))) == ["model variables     1 (1.0 MB)"]


def test_tpu_embeddings_are_answered_with_the_command_that_builds_the_model_again(tmp_path):
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        x = tf.placeholder(tf.float32, [8, 4], name="x")
        w = tf.get_variable("w", [4, 3], use_resource=True)
        looked_up = tf.raw_ops.TPUEmbeddingActivations(
            embedding_variable=0.0, sliced_activations=x, table_id=0, lookup_id=0
        )
        tf.matmul(looked_up, w, name="y")
        session.run(w.initializer)
        prefix = tf.train.Saver().save(session, str(tmp_path / "m.ckpt-3"), write_meta_graph=False)
        tf.train.export_meta_graph(prefix + ".meta")
    asked = ConvertOptions(prefix + ".meta", str(tmp_path / "b"), inputs={"x": "x"})
    with pytest.raises(UnsupportedOpsError) as error:
        convert(replace(asked, outputs={"y": "y"}))
    text = str(error.value)
    assert "TPUEmbeddingActivations x1" in text
    assert "TPU embedding       1 activations of tables" in text
    assert f"jobs/convert.py {prefix} --model-fn PACKAGE.MODULE:model_fn" in text
