"""The model as it was written for TPUs: nothing in it knows of batchinfer or has to change."""

from __future__ import annotations

import tensorflow.compat.v1 as tf
from tensorflow.contrib import summary

NUM_CLASSES = 10


def network(images):
    """conv 32 3x3 relu -> max-pool -> flatten -> dense 10, as logits [N, 10]."""
    with tf.variable_scope("tpu_cnn_model"):
        net = tf.layers.conv2d(images, 32, 3, padding="same", activation=tf.nn.relu, name="conv")
        net = tf.layers.max_pooling2d(net, pool_size=2, strides=2)
        net = tf.layers.flatten(net)
        return tf.layers.dense(net, NUM_CLASSES, name="dense")


def model_fn(features, labels, mode, params):
    """For `TPUEstimator`.

    Args:
        features: {"image": uint8 [N, 8, 8, 1]}, pixels 0 to 16.
        labels: int32 [N]; None to predict.
        params: `use_tpu` and `batch_size` from TPUEstimator; `use_bfloat16`, `learning_rate` and
            `model_dir` from us.
    """
    dtype = tf.bfloat16 if params["use_bfloat16"] else tf.float32
    images = tf.cast(features["image"], dtype) * (1 / 16)

    if params["use_bfloat16"]:
        with tf.tpu.bfloat16_scope():
            logits = network(images)
        logits = tf.cast(logits, tf.float32)
    else:
        logits = network(images)

    if mode == tf.estimator.ModeKeys.PREDICT:
        predictions = {
            "probabilities": tf.nn.softmax(logits),
            "classes": tf.argmax(logits, axis=1, output_type=tf.int32),
        }
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode=mode,
            predictions=predictions,
            export_outputs={"serving_default": tf.estimator.export.PredictOutput(predictions)},
        )

    loss = tf.losses.sparse_softmax_cross_entropy(labels=labels, logits=logits)

    if mode == tf.estimator.ModeKeys.EVAL:
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode=mode, loss=loss, eval_metrics=(metric_fn, [labels, logits])
        )

    optimizer = tf.train.AdamOptimizer(params["learning_rate"])
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    global_step = tf.train.get_global_step()
    train_op = optimizer.minimize(loss, global_step=global_step)

    def host_call_fn(global_step, loss):
        """Runs on the host: a TPU core cannot write a summary."""
        step = global_step[0]
        with summary.create_file_writer(params["model_dir"]).as_default():
            with summary.record_summaries_every_n_global_steps(100, global_step=step):
                summary.scalar("loss", loss[0], step=step)
                return summary.all_summary_ops()

    host_call = (host_call_fn, [tf.reshape(global_step, [1]), tf.reshape(loss, [1])])
    return tf.estimator.tpu.TPUEstimatorSpec(
        mode=mode, loss=loss, train_op=train_op, host_call=host_call
    )


def metric_fn(labels, logits):
    return {"accuracy": tf.metrics.accuracy(labels, tf.argmax(logits, axis=1))}
