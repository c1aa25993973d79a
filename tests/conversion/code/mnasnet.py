"""A model of flags that exports moving averages: its scaffold's saver renames them."""

from __future__ import annotations

import tensorflow as tf

flags = tf.flags
FLAGS = flags.FLAGS
flags.DEFINE_bool("use_tpu", True, "Train on a TPU.")
flags.DEFINE_integer("num_label_classes", 1000, "Classes.")
flags.DEFINE_float("moving_average_decay", 0.9, "Decay.")
flags.DEFINE_bool("export_moving_average", False, "Export averages in place of variables.")
flags.DEFINE_enum("data_format", "channels_first", ["channels_first", "channels_last"], "Order.")


def averages():
    return tf.train.ExponentialMovingAverage(decay=FLAGS.moving_average_decay)


def averaged():
    found = tf.trainable_variables() + tf.get_collection("moving_vars")
    return found + [v for v in tf.global_variables() if "moving_" in v.name]


def model_fn(features, mode):
    x = features
    if FLAGS.data_format == "channels_first":
        x = tf.transpose(x, [0, 3, 1, 2])
    x = tf.layers.batch_normalization(x, name="norm")
    logits = tf.layers.dense(tf.layers.flatten(x), FLAGS.num_label_classes, name="head")
    if FLAGS.use_tpu:
        logits = tf.contrib.tpu.outside_compilation(tf.identity, logits)
    train_op = None
    if mode == tf.estimator.ModeKeys.TRAIN:
        train_op = averages().apply(averaged())
        return tf.contrib.tpu.TPUEstimatorSpec(mode, loss=tf.reduce_mean(logits), train_op=train_op)
    scaffold_fn = None
    if FLAGS.export_moving_average:

        def restore_averages():
            names = averages().variables_to_restore(averaged())
            return tf.train.Scaffold(saver=tf.train.Saver(names))

        scaffold_fn = restore_averages
    return tf.contrib.tpu.TPUEstimatorSpec(
        mode=mode, predictions=tf.nn.softmax(logits), scaffold_fn=scaffold_fn
    )
