"""Functions and classes in the other shapes that a model comes in."""

from __future__ import annotations

import functools

import tensorflow as tf


def build(features):
    """{"x": (b, 4)} -> scores, nested, with one output that has no rows."""
    with tf.variable_scope("net"):
        y = tf.layers.dense(features["x"], 2)
    return {"scores": {"raw": y, "best": [tf.reduce_max(y, 1)]}, "anchors": tf.zeros([10, 4])}


def over_shards(features, num_shards):
    """Shards of the batch, as `batch_parallel` runs them."""

    def computation(x):
        return tf.layers.dense(x, 2, name="d")

    return tf.contrib.tpu.batch_parallel(computation, [features], num_shards=num_shards)[0]


spread = functools.partial(over_shards, num_shards=4)


def summed(features):
    """A sum over shards, which one device cannot give."""
    return tf.tpu.batch_parallel(lambda x: tf.tpu.cross_replica_sum(x), [features], num_shards=2)[0]


def twice(features):
    """Two replicas with inputs of their own, which share variables that nothing names."""

    def computation(x):
        return tf.layers.dense(tf.layers.dense(x, 3), 2)

    features = tf.layers.dense(features, 8)
    halves = [features[:, :4], features[:, 4:]]
    (first,), (second,) = tf.tpu.replicate(computation, [[half] for half in halves])
    return {"first": first, "second": second}


def by_keyword(features, labels, mode, config, *, params):
    assert labels is None and config.tpu_config.num_shards == 1
    return tf.estimator.EstimatorSpec(mode, predictions=features["x"] * params.nested.factor)


bound = functools.partial(by_keyword, params=None)


class Model:
    """Its method is the model_fn."""

    def __init__(self, width, use_tpu):
        assert use_tpu is False
        self.width = width

    def model_fn(self, features, labels, mode):
        y = tf.layers.dense(features["x"], self.width, name="d")
        served = tf.estimator.export.PredictOutput({"y": y})
        return tf.estimator.EstimatorSpec(
            mode, predictions=None if mode == "eval" else {"y": y},
            loss=tf.reduce_sum(y), export_outputs={"serving_default": served},
        )  # fmt: skip

    def __call__(self, features, labels, mode, params):
        return self.model_fn(features, labels, mode)


def fails(features, labels, mode, params):
    return dig(params)


def dig(params):
    return params["depth"]["of"] + params["num_classes"]


def reads_values(features, params):
    table = tf.train.load_variable("gs://gone/model.ckpt", "table")
    return features + tf.constant(table)


def looks_at_params(features, params):
    assert params.values()["rate"] == params.get("rate") == params["rate"] == 1e-4
    assert not params.use_tpu and not params["inner"]["use_tpu"]
    assert "context" not in params and params["context"].num_replicas == 1
    return tf.layers.dense(features, 1, name="d") * params.scale


def mean(features):
    return tf.reduce_mean(features, 1)


def dilated(features):
    """What TPU code gets from tf.nn.depthwise_conv2d with a rate."""
    kernel = tf.ones([3, 3, 1, 1])
    return tf.nn.depthwise_conv2d_native(
        features, kernel, [1, 1, 1, 1], "SAME", dilations=[1, 2, 2, 1], name="depthwise"
    )


def estimator(kind, width):
    """What many scripts have: a function that returns the Estimator."""
    params = {"width": width, "use_tpu": True}
    if kind == "tpu":
        config = tf.contrib.tpu.RunConfig(
            cluster=tf.contrib.cluster_resolver.TPUClusterResolver("a-tpu"), model_dir="/nowhere"
        )
        return tf.contrib.tpu.TPUEstimator(
            model_fn=of_width, config=config, params=params, use_tpu=True, train_batch_size=8
        )
    if kind == "canned":
        return tf.estimator.LinearRegressor([tf.feature_column.numeric_column("x", [4])])
    hparams = tf.contrib.training.HParams(**params)
    return tf.estimator.Estimator(of_width, model_dir="/nowhere", params=hparams)


def of_width(features, labels, mode, params):
    assert params["use_tpu"] is False
    y = tf.layers.dense(features["x"], params.width, name="d")
    return tf.estimator.EstimatorSpec(mode, predictions={"y": y})
