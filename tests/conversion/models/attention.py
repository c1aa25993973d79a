"""Pieces of transformer code as it is written for TPUs: static shapes, one-hot lookups, checks."""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf


def get_shape_list(tensor, expected_rank=None):
    """Static dimensions where they are known, tensors where they are not."""
    if expected_rank is not None and tensor.shape.ndims != expected_rank:
        raise ValueError(f"{tensor.name}: expected rank {expected_rank}, found {tensor.shape}")
    dynamic = tf.shape(tensor)
    shape = tensor.shape.as_list()
    return [dynamic[i] if size is None else size for i, size in enumerate(shape)]


def initializer(range_=0.3):
    return tf.truncated_normal_initializer(stddev=range_)


def gelu(x):
    cdf = 0.5 * (1.0 + tf.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * tf.pow(x, 3))))
    return x * cdf


def layer_norm(x, name=None):
    return tf.contrib.layers.layer_norm(
        inputs=x, begin_norm_axis=-1, begin_params_axis=-1, scope=name
    )


def dropout(x, rate, training):
    return tf.nn.dropout(x, rate=rate) if training and rate else x


def embedding_lookup(ids, vocab_size, width, name, use_one_hot):
    """(b, s) or (b, s, 1) ids -> (b, s, width), and the table."""
    if ids.shape.ndims == 2:
        ids = tf.expand_dims(ids, axis=[-1])
    table = tf.get_variable(name, [vocab_size, width], initializer=initializer())
    flat = tf.reshape(ids, [-1])
    if use_one_hot:
        found = tf.matmul(tf.one_hot(flat, depth=vocab_size, dtype=table.dtype), table)
    else:
        found = tf.gather(table, flat)
    shape = get_shape_list(ids)
    return tf.reshape(found, shape[0:-1] + [shape[-1] * width]), table


def attention_mask(from_tensor, to_mask):
    """(b, f), (b, t) -> (b, f, t) of 0 and 1, by a batch of ones."""
    batch, from_length = get_shape_list(from_tensor)[:2]
    to_length = get_shape_list(to_mask, expected_rank=2)[1]
    to_mask = tf.cast(tf.reshape(to_mask, [batch, 1, to_length]), tf.float32)
    return tf.ones([batch, from_length, 1], tf.float32) * to_mask


class WeightDecayAdam(tf.train.Optimizer):
    """Adam with decoupled weight decay; its slots are plain variables `<v>/adam_m`, `<v>/adam_v`.

    With `trust_ratio` each step is scaled by |w| / |step|, as LAMB does.
    """

    def __init__(self, learning_rate, decay=0.01, trust_ratio=False):
        super().__init__(False, "WeightDecayAdam")
        self.rate, self.decay, self.trust_ratio = learning_rate, decay, trust_ratio

    def apply_gradients(self, grads_and_vars, global_step=None, name=None):
        updates = []
        for gradient, variable in grads_and_vars:
            if gradient is None:
                continue
            gradient = tf.convert_to_tensor(gradient)  # of a lookup: dense from slices
            stem = re.match("^(.*?)(:\\d+)?$", variable.name).group(1)
            m, v = (self._slot(variable, f"{stem}/{slot}") for slot in ("adam_m", "adam_v"))
            next_m = 0.9 * m + 0.1 * gradient
            next_v = 0.999 * v + 0.001 * tf.square(gradient)
            step = next_m / (tf.sqrt(next_v) + 1e-6)
            if not re.search("layer_norm|LayerNorm|bias", stem):
                step += self.decay * variable
            if self.trust_ratio:
                norm, step_norm = tf.norm(variable), tf.norm(step)
                both = tf.logical_and(tf.greater(norm, 0), tf.greater(step_norm, 0))
                step *= tf.where(both, norm / step_norm, 1.0)
            updates += [
                variable.assign(variable - self.rate * step),
                m.assign(next_m),
                v.assign(next_v),
            ]
        return tf.group(*updates, name=name)

    @staticmethod
    def _slot(variable, name):
        return tf.get_variable(
            name,
            shape=variable.shape.as_list(),
            dtype=tf.float32,
            trainable=False,
            initializer=tf.zeros_initializer(),
        )


def train_op(loss, optimizer, use_tpu):
    """One clipped step on every core, as the training scripts of these models build it."""
    step = tf.train.get_or_create_global_step()
    if use_tpu:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    variables = tf.trainable_variables()
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), clip_norm=1.0)
    update = optimizer.apply_gradients(list(zip(gradients, variables)), global_step=step)
    return tf.group(update, step.assign(step + 1))
