"""Dilated depthwise convolutions, written in the four ways that TF 1.15 offers.

Inside a TPU context TF 1.15 writes them as DepthwiseConv2dNative with `dilations`, which its
kernels ignore without an error; outside of one as SpaceToBatchND, which is right.
"""

from __future__ import annotations

import numpy as np

from batchinfer.tf1 import tf

NUM_CLASSES = 4
SIDE = 12  # pixels
FEATURES = {"image": ("float32", (SIDE, SIDE, 3))}


def params():
    return {}


def make_features(num_rows, seed):
    values = np.random.RandomState(seed).normal(size=(num_rows, SIDE, SIDE, 3))
    return {"image": values.astype(np.float32)}


def make_labels(num_rows, seed):
    values = np.random.RandomState(seed).randint(0, NUM_CLASSES, size=num_rows)
    return {"label": values.astype(np.int32)}


def normal(name, shape):
    return tf.get_variable(name, shape, initializer=tf.random_normal_initializer(stddev=0.5))


def network(image):
    """(n, 12, 12, 3) -> (n, 4) logits and (n, 12, 12, 4) scores of each pixel."""
    spread = tf.random_normal_initializer(stddev=0.5)
    with tf.variable_scope("net"):
        x = tf.layers.conv2d(image, 6, 3, padding="same", kernel_initializer=spread, name="stem")
        x = tf.nn.relu(x)
        kernel = normal("depthwise/kernel", [3, 3, 6, 2])
        x = tf.tanh(tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME", rate=[2, 2]))
        x = tf.keras.layers.DepthwiseConv2D(
            5, padding="same", dilation_rate=2, depthwise_initializer=spread
        )(x)
        x = tf.layers.separable_conv2d(
            tf.tanh(x), 8, 3, padding="same", dilation_rate=(3, 3), name="separable",
            depthwise_initializer=spread, pointwise_initializer=spread,
        )  # fmt: skip
        # "VALID" and rates that differ: the image shrinks from 12 x 12 to 8 x 10.
        narrow = tf.nn.separable_conv2d(
            x, normal("last/depthwise", [3, 3, 8, 1]), normal("last/pointwise", [1, 1, 8, 8]),
            [1, 1, 1, 1], "VALID", rate=[2, 1],
        )  # fmt: skip
        pixels = tf.layers.conv2d(x, NUM_CLASSES, 1, kernel_initializer=spread, name="pixels")
        pooled = tf.reduce_mean(tf.nn.relu(narrow), [1, 2])
        return tf.layers.dense(pooled, NUM_CLASSES, kernel_initializer=spread, name="head"), pixels


def model_fn(features, labels, mode, params):
    logits, pixels = network(features["image"])
    found = {
        "probabilities": tf.nn.softmax(logits),
        "pixel_classes": tf.argmax(pixels, axis=-1),
        "pixel_scores": tf.nn.softmax(pixels),
    }
    if mode == tf.estimator.ModeKeys.PREDICT:
        outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)
    loss = tf.losses.sparse_softmax_cross_entropy(labels["label"], logits)
    optimizer = tf.train.GradientDescentOptimizer(0.01)
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(mode, loss=loss, train_op=update)
