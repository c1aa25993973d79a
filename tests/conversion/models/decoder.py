"""A translator: an encoder, and a greedy decoder with a cache that a loop updates in place."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import inplace_ops

LENGTH, STEPS, END = 6, 5, 1
FEATURES = {"inputs": ("int32", (LENGTH,))}


def params():
    return {"vocab_size": 20, "width": 8, "learning_rate": 0.05}


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    inputs = random.randint(2, params()["vocab_size"], (num_rows, LENGTH)).astype(np.int32)
    inputs[:, 3:][random.rand(num_rows, 3) < 0.3] = 0  # 0 is padding
    return {"inputs": inputs}


def make_labels(num_rows, seed):
    targets = np.random.RandomState(seed).randint(1, params()["vocab_size"], (num_rows, STEPS))
    return {"targets": targets.astype(np.int32)}


def model_fn(features, labels, mode, params):
    with tf.variable_scope("translator"):
        memory = encode(features["inputs"], params)
        if mode == tf.estimator.ModeKeys.PREDICT:
            ids, score = decode(memory, features["inputs"], params)
            found = {"ids": ids, "score": score}
            return tf.contrib.tpu.TPUEstimatorSpec(mode=mode, predictions=found)
        logits = teach(memory, features["inputs"], labels["targets"], params)
    loss = tf.reduce_mean(
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels["targets"], logits=logits)
    )
    step = tf.train.get_or_create_global_step()
    with tf.variable_scope("losses_avg"):  # kept for the logs: no part of the model
        average = tf.get_variable("total_loss", initializer=100.0, trainable=False)
    optimizer = Adafactor(params["learning_rate"])
    if params["use_tpu"]:
        optimizer = tf.contrib.tpu.CrossShardOptimizer(optimizer)
    with tf.variable_scope("training"):
        update = optimizer.minimize(loss, global_step=step)
    update = tf.group(update, average.assign(average * 0.9 + loss * 0.1))
    return tf.contrib.tpu.TPUEstimatorSpec(mode=mode, loss=loss, train_op=update)


def encode(inputs, params):
    """(b, s) ids -> (b, s, width)."""
    x = tf.gather(symbols(params), inputs) * params["width"] ** 0.5
    hidden = tf.layers.conv1d(x, params["width"], 3, padding="same", name="conv")
    return x + tf.nn.relu(hidden)


def symbols(params):
    with tf.variable_scope("symbols", reuse=tf.AUTO_REUSE):
        return tf.get_variable(
            "weights",
            [params["vocab_size"], params["width"]],
            initializer=tf.random_normal_initializer(stddev=params["width"] ** -0.5),
        )


def attend(query, keys, bias):
    """(b, w), (b, s, w), (b, s) -> (b, w)."""
    logits = tf.einsum("bw,bsw->bs", query, keys) + bias
    return tf.einsum("bs,bsw->bw", tf.nn.softmax(logits), keys)


def step_logits(step, previous, update, memory, inputs, params):
    """One decoding step.

    Args:
        previous: (b,) ids chosen in the step before.
        update: puts this step's (b, width) into the (STEPS, b, width) cache and returns it.

    Returns:
        (b, vocab) logits and the cache.
    """
    padding = tf.cast(tf.equal(inputs, 0), tf.float32) * -1e9
    later = tf.where(tf.range(STEPS) > step, tf.fill([STEPS], -1e9), tf.zeros([STEPS]))
    table = symbols(params)
    with tf.variable_scope("decoder", reuse=tf.AUTO_REUSE):
        x = tf.gather(table, previous)
        new = tf.layers.dense(x, params["width"], name="cache")
        cache = update(new)
        entries = tf.transpose(cache, [1, 0, 2])
        x += attend(new, entries, tf.expand_dims(later, 0)) + attend(new, memory, padding)
        x = tf.layers.dense(x, 2 * params["width"], tf.nn.relu, name="wide")
        x = tf.layers.dense(x, params["width"], name="narrow")
    return tf.matmul(x, table, transpose_b=True), cache


def teach(memory, inputs, targets, params):
    """Logits for each step, given the true ids before it."""
    batch = tf.shape(inputs)[0]
    cache = tf.zeros([STEPS, batch, params["width"]])
    previous, found = tf.zeros([batch], tf.int32), []
    for step in range(STEPS):
        here = tf.reshape(tf.one_hot(step, STEPS), [STEPS, 1, 1])
        update = lambda new, cache=cache, here=here: cache + here * new  # noqa: E731
        logits, cache = step_logits(step, previous, update, memory, inputs, params)
        previous = targets[:, step]
        found.append(logits)
    return tf.stack(found, axis=1)


def decode(memory, inputs, params):
    """(b, STEPS) ids, 0 after the end, and (b,) log probabilities; stops when all have ended."""
    batch = inputs.shape[0].value or tf.shape(inputs)[0]

    def unfinished(step, previous, ended, score, ids, cache):
        return tf.logical_and(step < STEPS, tf.logical_not(tf.reduce_all(ended)))

    def body(step, previous, ended, score, ids, cache):
        update = lambda new: inplace_ops.alias_inplace_update(cache, step, new)  # noqa: E731
        logits, cache = step_logits(step, previous, update, memory, inputs, params)
        best = tf.nn.top_k(tf.nn.log_softmax(logits), k=1)
        chosen = tf.where(ended, tf.zeros_like(previous), tf.squeeze(best.indices, -1))
        score += tf.where(ended, tf.zeros_like(score), tf.squeeze(best.values, -1))
        ids = inplace_ops.alias_inplace_update(ids, step, chosen)
        ended = tf.logical_or(ended, tf.equal(chosen, END))
        return step + 1, chosen, ended, score, ids, cache

    start = [
        tf.constant(0),
        tf.zeros([batch], tf.int32),
        tf.zeros([batch], tf.bool),
        tf.zeros([batch]),
        tf.zeros([STEPS, batch], tf.int32),
        tf.zeros([STEPS, batch, params["width"]]),
    ]
    found = tf.while_loop(unfinished, body, start, back_prop=False)
    return tf.transpose(found[4]), found[3]


class Adafactor(tf.train.Optimizer):
    """Second moments of matrices kept as the means of rows (`vr`) and of columns (`vc`)."""

    def __init__(self, learning_rate):
        super().__init__(False, "Adafactor")
        self.rate = learning_rate

    def _create_slots(self, var_list):
        for variable in var_list:
            shape = variable.shape.as_list()
            if len(shape) == 2:
                self._get_or_make_slot(variable, tf.zeros(shape[:1]), "vr", self._name)
                self._get_or_make_slot(variable, tf.zeros(shape[1:]), "vc", self._name)
            else:
                self._get_or_make_slot(variable, tf.zeros(shape), "v", self._name)

    def _resource_apply_dense(self, grad, handle):
        return self._apply_dense(grad, handle)

    def _resource_apply_sparse(self, grad, handle, indices):
        dense = tf.convert_to_tensor(tf.IndexedSlices(grad, indices, tf.shape(handle)))
        return self._apply_dense(dense, handle)

    def _apply_sparse(self, grad, var):
        return self._apply_dense(tf.convert_to_tensor(grad), var)

    def _apply_dense(self, grad, var):
        square = tf.square(grad) + 1e-30
        if len(var.shape) == 2:
            vr, vc = self.get_slot(var, "vr"), self.get_slot(var, "vc")
            rows = 0.9 * vr + 0.1 * tf.reduce_mean(square, 1)
            columns = 0.9 * vc + 0.1 * tf.reduce_mean(square, 0)
            scale = tf.rsqrt(rows / tf.reduce_mean(rows))[:, None] * tf.rsqrt(columns)[None]
            kept = [vr.assign(rows), vc.assign(columns)]
        else:
            slot = self.get_slot(var, "v")
            moment = 0.9 * slot + 0.1 * square
            scale, kept = tf.rsqrt(moment), [slot.assign(moment)]
        change = self.rate * tf.clip_by_norm(grad * scale, 1.0)
        return tf.group(var.assign(var - change), *kept)
