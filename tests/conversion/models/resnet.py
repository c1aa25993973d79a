"""A small ResNet as TPU repositories write it: bfloat16 scope, cross-replica batch norm, LARS.

The image comes as whole numbers from 0 to 255 and is normalised in the graph.
"""

from __future__ import annotations

import numpy as np
from tensorflow.python.tpu import tpu_function

from batchinfer.tf1 import tf

NUM_CLASSES = 5
SIDE = 16  # pixels
MEAN_RGB = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STDDEV_RGB = (0.229 * 255, 0.224 * 255, 0.225 * 255)
# The same constants as bfloat16 holds them.
ROUNDED = {"mean_rgb": (123.5, 116.5, 103.5), "stddev_rgb": (58.5, 57.0, 57.5)}

FEATURES = {"image": ("float32", (SIDE, SIDE, 3))}


def params():
    return {
        "precision": "float32",
        "mean_rgb": MEAN_RGB,
        "stddev_rgb": STDDEV_RGB,
    }


def make_features(num_rows, seed):
    values = np.random.RandomState(seed).randint(0, 256, size=(num_rows, SIDE, SIDE, 3))
    return {"image": values.astype(np.float32)}


def make_labels(num_rows, seed):
    values = np.random.RandomState(seed).randint(0, NUM_CLASSES, size=num_rows)
    return {"label": values.astype(np.int32)}


class CrossReplicaBatchNorm(tf.layers.BatchNormalization):
    """Batch norm over all replicas: sums of moments in TRAIN, moving averages otherwise."""

    def __init__(self, **kwargs):
        super().__init__(fused=False, **kwargs)

    def _moments(self, inputs, reduction_axes, keep_dims):
        mean, variance = super()._moments(inputs, reduction_axes, keep_dims=keep_dims)
        num_replicas = tpu_function.get_tpu_context().number_of_shards or 1
        if num_replicas == 1:
            return mean, variance
        group = [list(range(num_replicas))]
        all_mean = tf.tpu.cross_replica_sum(mean, group) / num_replicas
        of_squares = tf.square(mean) + variance
        of_squares = tf.tpu.cross_replica_sum(of_squares, group) / num_replicas
        return all_mean, of_squares - tf.square(all_mean)


def norm(x, training, relu=True):
    x = CrossReplicaBatchNorm(momentum=0.9, epsilon=1e-5)(x, training=training)
    return tf.nn.relu(x) if relu else x


def conv(x, filters, kernel, strides):
    """Pads by hand before a stride, so that the padding does not depend on the image's size."""
    if strides > 1:
        before = (kernel - 1) // 2
        after = kernel - 1 - before
        x = tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
    return tf.layers.conv2d(
        x, filters, kernel, strides, "valid" if strides > 1 else "same", use_bias=False,
        kernel_initializer=tf.variance_scaling_initializer(),
    )  # fmt: skip


def block(x, filters, strides, training):
    shortcut = x
    if strides > 1:
        shortcut = norm(conv(x, filters, 1, strides), training, relu=False)
    x = norm(conv(x, filters, 3, strides), training)
    x = norm(conv(x, filters, 3, 1), training, relu=False)
    return tf.nn.relu(x + shortcut)


def network(image, training):
    """(n, 16, 16, 3) -> (n, 5) logits, in the image's dtype."""
    with tf.variable_scope("resnet_model"):
        x = tf.identity(conv(image, 8, 3, 2), "initial_conv")
        x = tf.layers.max_pooling2d(norm(x, training), 3, 2, "same")
        x = block(x, 8, 1, training)
        x = block(x, 16, 2, training)
        x = tf.layers.average_pooling2d(x, 2, 1)
        x = tf.reshape(x, [-1, 16])
        return tf.layers.dense(x, NUM_CLASSES, kernel_initializer=tf.random_normal_initializer())


def normalised(image, params):
    """Subtract the mean and divide by the deviation of ImageNet, in the image's dtype."""
    image -= tf.constant(params["mean_rgb"], shape=[1, 1, 3], dtype=image.dtype)
    return image / tf.constant(params["stddev_rgb"], shape=[1, 1, 3], dtype=image.dtype)


def logits_of(features, training, params):
    image = features["image"]
    if params["precision"] != "bfloat16":
        return network(normalised(image, params), training)
    with tf.tpu.bfloat16_scope():
        return tf.cast(
            network(normalised(tf.cast(image, tf.bfloat16), params), training), tf.float32
        )


def optimizer(params):
    from tensorflow.contrib.opt.python.training import lars_optimizer

    made = lars_optimizer.LARSOptimizer(0.1, skip_list=["batch_normalization", "bias"])
    return tf.tpu.CrossShardOptimizer(made) if params["use_tpu"] else made


def model_fn(features, labels, mode, params):
    logits = logits_of(features, mode == tf.estimator.ModeKeys.TRAIN, params)
    if mode == tf.estimator.ModeKeys.PREDICT:
        found = {
            "classes": tf.argmax(logits, axis=1),
            "probabilities": tf.nn.softmax(logits, name="softmax_tensor"),
        }
        outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)
    loss = tf.losses.softmax_cross_entropy(
        tf.one_hot(labels["label"], NUM_CLASSES), logits, label_smoothing=0.1
    )
    loss += 1e-4 * tf.add_n(
        [tf.nn.l2_loss(v) for v in tf.trainable_variables() if "batch_norm" not in v.name]
    )
    if mode == tf.estimator.ModeKeys.EVAL:
        return tf.estimator.tpu.TPUEstimatorSpec(mode, loss=loss)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        update = optimizer(params).minimize(loss, tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(mode, loss=loss, train_op=update)
