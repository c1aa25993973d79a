"""An LSTM over sequences of their own length: a while loop, a cond, optionally as functions."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

LENGTH = 7
FEATURES = {"tokens": ("int32", (LENGTH,)), "lengths": ("int32", ())}


def params():
    return {
        "vocab_size": 40,
        "embedding": 6,
        "units": 8,
        "learning_rate": 0.05,
        "use_bfloat16": False,
        "control_flow_v2": False,
    }


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    lengths = random.randint(0, LENGTH + 1, num_rows)
    tokens = random.randint(0, params()["vocab_size"], (num_rows, LENGTH))
    return {"tokens": tokens.astype(np.int32), "lengths": lengths.astype(np.int32)}


def make_labels(num_rows, seed):
    return {"sentiment": np.random.RandomState(seed).randint(0, 2, num_rows).astype(np.int32)}


def model_fn(features, labels, mode, params):
    if params["control_flow_v2"]:
        tf.enable_control_flow_v2()  # for the whole process, hence the other below
    try:
        return build(features, labels, mode, params)
    finally:
        tf.disable_control_flow_v2()


def build(features, labels, mode, params):
    if params["use_bfloat16"]:
        with tf.contrib.tpu.bfloat16_scope():
            states, logits = network(features, params, tf.bfloat16)
        states, logits = tf.cast(states, tf.float32), tf.cast(logits, tf.float32)
    else:
        states, logits = network(features, params, tf.float32)
    if mode == tf.estimator.ModeKeys.PREDICT:
        found = {
            "states": states,
            "probability": tf.nn.sigmoid(logits),
            "positive": logits > 0,
        }
        return tf.contrib.tpu.TPUEstimatorSpec(mode=mode, predictions=found)
    wanted = tf.cast(labels["sentiment"], tf.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits))
    optimizer = tf.train.AdamOptimizer(params["learning_rate"])
    if params["use_tpu"]:
        optimizer = tf.contrib.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
    return tf.contrib.tpu.TPUEstimatorSpec(mode=mode, loss=loss, train_op=update)


def network(features, params, dtype):
    """(b, s) tokens, (b,) lengths -> (b, s, units) states, (b,) logits."""
    lengths = features["lengths"]
    with tf.variable_scope("sentiment"):
        table = tf.get_variable("embedding", [params["vocab_size"], params["embedding"]])
        x = tf.cast(tf.nn.embedding_lookup(table, features["tokens"]), dtype)
        cell = tf.nn.rnn_cell.LSTMCell(params["units"], use_peepholes=True, name="lstm")
        states, last = tf.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=dtype)
        pooled = tf.cond(  # an empty text has no state to pool
            tf.reduce_all(lengths > 0),
            lambda: last.h + mean_state(states, lengths),
            lambda: tf.where(lengths > 0, last.h + mean_state(states, lengths), last.h),
        )
        logits = tf.layers.dense(pooled, 1, name="logits")
    return states, tf.squeeze(logits, axis=-1)


def mean_state(states, lengths):
    """(b, s, units) -> (b, units) over the steps that are there; NaN-free by a floor of 1."""
    there = tf.sequence_mask(lengths, LENGTH, dtype=states.dtype)
    total = tf.reduce_sum(states * tf.expand_dims(there, -1), axis=1)
    return total / tf.expand_dims(tf.cast(tf.maximum(lengths, 1), states.dtype), -1)
