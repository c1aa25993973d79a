"""A lookup table on the host, in front of the cluster of a {serve, tpu} export."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions

WORDS = np.array([b"a", b"c", b"zz", b"b", b"c"], object)
ROWS = np.arange(15, dtype=np.float32).reshape(5, 3)
EXPECTED = ROWS[[0, 2, 4, 1, 2]]


def model_fn(features, labels, mode, params):
    del labels, params
    table = tf.get_variable("table", initializer=ROWS)
    found = {"y": tf.gather(table, features["index"]) * 1.0}
    outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
    return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)


def receiver():
    words = tf.placeholder(tf.string, [None], name="words")
    values = tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], np.arange(3, dtype=np.int64))
    index = tf.lookup.StaticHashTable(values, 4).lookup(words)
    return tf.estimator.export.ServingInputReceiver({"index": index}, {"words": words})


@pytest.fixture(scope="module", params=[False, True], ids=["tpu alone", "with a graph for the CPU"])
def export(request, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("host_lookup"))
    with tf.Graph().as_default(), tf.Session() as session:
        tf.train.create_global_step()
        tf.get_variable("table", initializer=ROWS)
        session.run(tf.global_variables_initializer())
        checkpoint = tf.train.Saver().save(session, os.path.join(folder, "m"))
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    estimator = tf.estimator.tpu.TPUEstimator(
        model_fn,
        config=tf.estimator.tpu.RunConfig(model_dir=folder + "/dir", session_config=config),
        use_tpu=True,
        train_batch_size=8,
        predict_batch_size=8,
        export_to_cpu=request.param,
    )
    written = estimator.export_saved_model(folder + "/out", receiver, checkpoint_path=checkpoint)
    return written.decode()


def test_words_are_looked_up_on_the_host_and_rows_in_the_cluster(export, tmp_path):
    reference = tmp_path / "reference.npz"
    np.savez(str(reference), **{"inputs/words": WORDS.astype("S2")})
    asked = ConvertOptions(export, str(tmp_path / "b"), reference=str(reference))
    assert convert(asked)["parity"]["passed"]
    bundle = Bundle.open(str(tmp_path / "b"))
    assert [str(one) for one in bundle.signature.outputs] == ["y: float32[?, 3]"]
    scorer = Scorer.restore(bundle, 5)
    found = scorer.score({"words": WORDS})["y"]
    scorer.close()
    np.testing.assert_array_equal(found, EXPECTED)
