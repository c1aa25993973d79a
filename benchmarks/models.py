"""The models of the workloads, as someone who trains on TPUs writes them; no weights are trained.

Each turns a batch of inputs into class probabilities (n, classes) in float32.
"""

from __future__ import annotations

import math
from typing import Any

from batchinfer.tf1 import tf

VOCABULARY, TOKENS, WIDTH, HEADS, LAYERS = 8192, 128, 64, 4, 2


def mlp(x: Any) -> Any:
    """(n, 64) float32 -> (n, 10): 64-256-256-10."""
    for number in range(2):
        x = tf.layers.dense(x, 256, activation=tf.nn.relu, name=f"hidden_{number}")
    return tf.nn.softmax(tf.layers.dense(x, 10, name="logits"))


def _conv_norm(x: Any, filters: int, stride: int, name: str) -> Any:
    with tf.variable_scope(name):
        x = tf.layers.conv2d(
            x, filters, 3, strides=stride, padding="same", use_bias=False, name="conv"
        )
        return tf.layers.batch_normalization(x, fused=True, training=False, name="norm")


def _block(x: Any, filters: int, stride: int, name: str) -> Any:
    """Two convolutions beside an identity, or beside a convolution of 1x1 where sizes change."""
    with tf.variable_scope(name):
        short = x
        if stride != 1:
            short = tf.layers.conv2d(
                x, filters, 1, strides=stride, padding="same", use_bias=False, name="project"
            )
            short = tf.layers.batch_normalization(short, fused=True, training=False, name="norm")
        x = tf.nn.relu(_conv_norm(x, filters, stride, "first"))
        return tf.nn.relu(_conv_norm(x, filters, 1, "second") + short)


def residual_cnn(x: Any) -> Any:
    """(n, 64, 64, 3) uint8 -> (n, 10): a stem of stride 2 and three residual blocks."""
    x = tf.cast(x, tf.float32) * (1 / 127.5) - 1.0
    x = tf.nn.relu(_conv_norm(x, 16, 2, "stem"))
    for number, (filters, stride) in enumerate([(16, 1), (32, 2), (64, 2)]):
        x = _block(x, filters, stride, f"block_{number}")
    return tf.nn.softmax(tf.layers.dense(tf.reduce_mean(x, [1, 2]), 10, name="logits"))


def small_cnn(x: Any) -> Any:
    """(n, 64, 64, 3) uint8 -> (n, 10): cheap, so that decoding shows beside it."""
    x = tf.cast(x, tf.float32) * (1 / 127.5) - 1.0
    for number, filters in enumerate([8, 16]):
        x = tf.nn.relu(_conv_norm(x, filters, 2, f"conv_{number}"))
    return tf.nn.softmax(tf.layers.dense(tf.reduce_mean(x, [1, 2]), 10, name="logits"))


def _layer_norm(x: Any, name: str) -> Any:
    with tf.variable_scope(name):
        gamma, beta = tf.get_variable("gamma", [WIDTH]), tf.get_variable("beta", [WIDTH])
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return (x - mean) * tf.rsqrt(variance + 1e-6) * gamma + beta


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * tf.pow(x, 3))))


def _attention(x: Any) -> Any:
    size = WIDTH // HEADS
    heads = []
    for name in ("query", "key", "value"):
        weights = tf.get_variable(name, [WIDTH, HEADS, size])
        heads.append(tf.einsum("btw,whs->bths", x, weights))
    query, key, value = heads
    scores = tf.einsum("bqhs,bkhs->bhqk", query, key) * (1 / math.sqrt(size))
    mixed = tf.einsum("bhqk,bkhs->bqhs", tf.nn.softmax(scores), value)
    return tf.einsum("bqhs,hsw->bqw", mixed, tf.get_variable("out", [HEADS, size, WIDTH]))


def transformer(tokens: Any) -> Any:
    """(n, 128) int32 -> (n, 4): two layers of 64, four heads, gelu, the mean over tokens."""
    table = tf.get_variable("table", [VOCABULARY, WIDTH])
    x = tf.gather(table, tokens) + tf.get_variable("positions", [TOKENS, WIDTH])
    for number in range(LAYERS):
        with tf.variable_scope(f"layer_{number}"):
            x = _layer_norm(x + _attention(x), "after_attention")
            wide = _gelu(tf.layers.dense(x, 4 * WIDTH, name="wide"))
            x = _layer_norm(x + tf.layers.dense(wide, WIDTH, name="narrow"), "after_dense")
    return tf.nn.softmax(tf.layers.dense(tf.reduce_mean(x, 1), 4, name="logits"))


def decode_and_classify(encoded: Any) -> Any:
    """n JPEGs as bytes -> (n, 10)."""

    def decode(one: Any) -> Any:
        return tf.reshape(tf.image.decode_jpeg(one, channels=3), [64, 64, 3])

    return small_cnn(tf.map_fn(decode, encoded, dtype=tf.uint8, back_prop=False))


def parse_and_classify(serialized: Any) -> Any:
    """n tf.Example records with `x`, 64 floats -> (n, 10)."""
    features = {"x": tf.FixedLenFeature([64], tf.float32)}
    return mlp(tf.parse_example(serialized, features)["x"])
