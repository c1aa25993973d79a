"""A residual network as TPU scripts write one: bfloat16_scope and cross-replica norms."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.contrib.tpu.python.ops import tpu_ops
from tensorflow.contrib.tpu.python.tpu import tpu_function


class TpuBatchNormalization(tf.layers.BatchNormalization):
    """Batch norm whose moments are those of all replicas."""

    def __init__(self, fused=False, **kwargs):
        super().__init__(fused=False, **kwargs)

    def _moments(self, inputs, reduction_axes, keep_dims):
        mean, variance = super()._moments(inputs, reduction_axes, keep_dims=keep_dims)
        shards = tpu_function.get_tpu_context().number_of_shards or 1
        if shards > 1:
            mean = tpu_ops.cross_replica_sum(mean) / shards
            variance = tpu_ops.cross_replica_sum(variance) / shards
        return mean, variance


def norm_relu(x, training, name):
    layer = TpuBatchNormalization(momentum=0.9, name=name)
    return tf.nn.relu(layer(x, training=training))


def network(image, training):
    x = tf.layers.conv2d(image, 4, 3, padding="same", use_bias=False, name="stem")
    x = norm_relu(x, training, "stem_norm")
    y = tf.layers.conv2d(x, 4, 3, padding="same", use_bias=False, name="block")
    x = norm_relu(x + y, training, "block_norm")
    x = tf.reduce_mean(x, [1, 2])
    return tf.layers.dense(x, 3, name="final")


def model_fn(features, labels, mode, params):
    if isinstance(features, dict):
        features = features["feature"]
    training = mode == tf.estimator.ModeKeys.TRAIN
    if params["transpose_input"] and mode != tf.estimator.ModeKeys.PREDICT:
        features = tf.transpose(features, [3, 0, 1, 2])
    if params.use_bfloat16:
        with tf.contrib.tpu.bfloat16_scope():
            logits = tf.cast(network(features, training), tf.float32)
    else:
        logits = network(features, training)
    found = {"classes": tf.argmax(logits, axis=1), "probabilities": tf.nn.softmax(logits)}
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.EstimatorSpec(mode=mode, predictions=found)
    batch = params["batch_size"]
    one_hot = tf.one_hot(labels, 3)
    loss = tf.losses.softmax_cross_entropy(one_hot, logits) + 1e-4 * batch
    host_call = None
    train_op = None
    if training:
        optimizer = tf.train.MomentumOptimizer(params["learning_rate"], momentum=0.9)
        if params["use_tpu"]:
            optimizer = tf.contrib.tpu.CrossShardOptimizer(optimizer)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train_op = optimizer.minimize(loss, tf.train.get_global_step())
        host_call = (lambda loss: tf.summary.scalar("loss", loss[0]), [tf.reshape(loss, [1])])

    def metric_fn(labels, logits):
        return {"top_1": tf.metrics.accuracy(labels, tf.argmax(logits, axis=1))}

    return tf.contrib.tpu.TPUEstimatorSpec(
        mode=mode,
        loss=loss,
        train_op=train_op,
        host_call=host_call,
        eval_metrics=(metric_fn, [labels, logits]),
    )
