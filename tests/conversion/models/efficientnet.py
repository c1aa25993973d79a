"""A small EfficientNet as TPU repositories write it: EMA of all, RMSProp, swish, drop connect.

Training keeps moving averages of every trainable variable and of the batch statistics. EVAL
restores them in the place of the variables (scaffold); PREDICT takes the raw weights: that is
what the best-known code does, and why the weights have to be chosen (`--weights`).
"""

from __future__ import annotations

import numpy as np

from batchinfer.tf1 import tf

NUM_CLASSES = 5
SIDE = 16  # pixels
DECAY = 0.9  # short, so that a few steps of training tell the averages from the weights
FEATURES = {"image": ("float32", (SIDE, SIDE, 3))}
# kernel, stride, filters, expansion of the input filters
BLOCKS = ((3, 1, 8, 1), (5, 2, 16, 4))


def params():
    return {"precision": "float32"}


def make_features(num_rows, seed):
    values = np.random.RandomState(seed).uniform(-1, 1, size=(num_rows, SIDE, SIDE, 3))
    return {"image": values.astype(np.float32)}


def make_labels(num_rows, seed):
    values = np.random.RandomState(seed).randint(0, NUM_CLASSES, size=num_rows)
    return {"label": values.astype(np.int32)}


def norm(x, training):
    return tf.layers.batch_normalization(
        x, momentum=0.9, epsilon=1e-3, training=training, fused=True
    )


def conv(x, filters, kernel, strides=1, use_bias=False):
    return tf.layers.conv2d(
        x, filters, kernel, strides, "same", use_bias=use_bias,
        kernel_initializer=tf.variance_scaling_initializer(),
    )  # fmt: skip


def depthwise(x, kernel, strides):
    return tf.keras.layers.DepthwiseConv2D(
        kernel, strides, "same", use_bias=False,
        depthwise_initializer=tf.variance_scaling_initializer(),
    )(x)  # fmt: skip


def squeeze_excite(x, filters):
    """Scale each channel by what the mean over the image says."""
    squeezed = tf.reduce_mean(x, [1, 2], keepdims=True)
    squeezed = tf.nn.swish(conv(squeezed, filters, 1, use_bias=True))
    return tf.sigmoid(conv(squeezed, x.shape[-1].value, 1, use_bias=True)) * x


def drop_connect(x, training, survival):
    """Leave the residual out for a random part of the rows; in TRAIN only."""
    if not training:
        return x
    keep = tf.floor(survival + tf.random_uniform([tf.shape(x)[0], 1, 1, 1], dtype=x.dtype))
    return x / tf.cast(survival, x.dtype) * keep


def block(x, kernel, strides, filters, expansion, training):
    shortcut, width = x, x.shape[-1].value
    if expansion > 1:
        x = tf.nn.swish(norm(conv(x, width * expansion, 1), training))
    x = tf.nn.swish(norm(depthwise(x, kernel, strides), training))
    x = squeeze_excite(x, max(1, width // 4))
    x = norm(conv(x, filters, 1), training)
    if strides == 1 and width == filters:
        x = drop_connect(x, training, survival=0.8) + shortcut
    return x


def network(image, training):
    with tf.variable_scope("efficientnet"):
        x = tf.nn.swish(norm(conv(image, 8, 3, 2), training))
        for index, (kernel, strides, filters, expansion) in enumerate(BLOCKS):
            with tf.variable_scope(f"blocks_{index}"):
                x = block(x, kernel, strides, filters, expansion, training)
        x = tf.nn.swish(norm(conv(x, 32, 1), training))
        x = tf.reduce_mean(x, [1, 2])
        if training:
            x = tf.nn.dropout(x, rate=0.2)
        return tf.layers.dense(
            x, NUM_CLASSES, kernel_initializer=tf.random_normal_initializer(stddev=2.0), name="head"
        )


def logits_of(features, training, params):
    image = features["image"]
    if params["precision"] != "bfloat16":
        return network(image, training)
    with tf.tpu.bfloat16_scope():
        return tf.cast(network(tf.cast(image, tf.bfloat16), training), tf.float32)


def averaged_variables():
    """All trainable variables, and the batch statistics."""
    found = tf.trainable_variables() + tf.moving_average_variables()
    found += [v for v in tf.global_variables() if "moving_mean" in v.name]
    found += [v for v in tf.global_variables() if "moving_variance" in v.name]
    return list({v.name: v for v in found}.values())


def scaffold_of_averages():
    """A saver that restores the moving averages into the variables."""
    average = tf.train.ExponentialMovingAverage(DECAY)
    saver = tf.train.Saver(average.variables_to_restore(averaged_variables()))
    return tf.train.Scaffold(saver=saver)


def model_fn(features, labels, mode, params):
    logits = logits_of(features, mode == tf.estimator.ModeKeys.TRAIN, params)
    found = {"classes": tf.argmax(logits, axis=1), "probabilities": tf.nn.softmax(logits)}
    if mode == tf.estimator.ModeKeys.PREDICT:
        outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)
    loss = tf.losses.sparse_softmax_cross_entropy(labels["label"], logits)
    if mode == tf.estimator.ModeKeys.EVAL:
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode, loss=loss, predictions=found, scaffold_fn=scaffold_of_averages
        )
    step = tf.train.get_or_create_global_step()
    optimizer = tf.train.RMSPropOptimizer(0.01, decay=0.9, momentum=0.9, epsilon=0.001)
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        update = optimizer.minimize(loss, step)
    average = tf.train.ExponentialMovingAverage(DECAY, num_updates=step)
    with tf.control_dependencies([update]):
        update = average.apply(averaged_variables())
    return tf.estimator.tpu.TPUEstimatorSpec(mode, loss=loss, train_op=update)
