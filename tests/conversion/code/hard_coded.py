"""Code that only ever ran on TPUs: it takes no use_tpu, and names of the TPU API are bound here."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.contrib.tpu import cross_replica_sum
from tensorflow.contrib.tpu.python.tpu import tpu_function
from tensorflow.contrib.tpu.python.tpu.tpu import rewrite as compiled

sum_of_all = cross_replica_sum


def mean_of_replicas(x):
    return sum_of_all(x) / tpu_function.get_tpu_context().number_of_shards


def model_fn(features, labels, mode, params):
    """(b, 4) -> (b, 2), the mean over one replica; the batch from params, the context asked."""
    del labels
    context = params["context"]
    x = tf.reshape(features, [params["batch_size"] * context.num_replicas, 4])

    def computation(x):
        with tf.device(tf.contrib.tpu.core(0)):
            hidden = tf.layers.dense(x, 3, activation=tf.nn.relu)
        hidden = mean_of_replicas(hidden)
        return tf.layers.dense(hidden, 2, name="logits"), tf.no_op()

    (logits,) = compiled(computation, [x])
    host, ordinal = context.device_for_replica(0)
    with tf.device(host):
        scores = tf.identity(logits + float(ordinal), name="scores")
    return tf.contrib.tpu.TPUEstimatorSpec(
        mode=mode, predictions={"scores": scores, "norm": tf.norm(logits)}
    )
