"""An ALBERT-like encoder: one layer's weights for every layer, einsum throughout, LAMB."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.conversion.models import attention
from tests.conversion.models.attention import dropout, get_shape_list, initializer, layer_norm

LENGTH = 10
FEATURES = {"input_ids": ("int32", (LENGTH,)), "input_mask": ("int32", (LENGTH,))}


def params():
    return {
        "vocab_size": 50,
        "embedding": 6,
        "hidden": 16,
        "heads": 4,
        "layers": 2,
        "dropout": 0.1,
        "learning_rate": 0.02,
    }


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    lengths = random.randint(2, LENGTH + 1, num_rows)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    ids = random.randint(1, params()["vocab_size"], (num_rows, LENGTH))
    return {"input_ids": ids.astype(np.int32) * mask, "input_mask": mask}


def make_labels(num_rows, seed):
    return {"score": np.random.RandomState(seed).rand(num_rows).astype(np.float32)}


def model_fn(features, labels, mode, params):
    """Regress a score; predictions also give every token's vector, as feature extraction does."""
    training = mode == tf.estimator.ModeKeys.TRAIN
    sequence, pooled = encode(features, params, training)
    score = tf.squeeze(tf.layers.dense(pooled, 1, name="score"), axis=-1)
    if mode == tf.estimator.ModeKeys.PREDICT:
        found = {"sequence_output": sequence, "pooled_output": pooled, "score": score}
        return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, predictions=found)
    loss = tf.reduce_mean(tf.squared_difference(score, labels["score"]))
    optimizer = attention.WeightDecayAdam(params["learning_rate"], trust_ratio=True)
    update = attention.train_op(loss, optimizer, params["use_tpu"])
    return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, loss=loss, train_op=update)


def encode(features, config, training):
    """(b, s) ids -> (b, s, hidden), (b, hidden)."""
    ids = features["input_ids"]
    with tf.variable_scope("albert"):
        with tf.variable_scope("embeddings"):
            x, _ = attention.embedding_lookup(
                ids,
                config["vocab_size"],
                config["embedding"],
                "word_embeddings",
                config["use_tpu"],
            )
            length = get_shape_list(ids)[1]
            positions = tf.get_variable(
                "position_embeddings", [16, config["embedding"]], initializer=initializer()
            )
            x += tf.expand_dims(tf.slice(positions, [0, 0], [length, -1]), 0)
            x = dropout(layer_norm(x, "LayerNorm"), config["dropout"], training)
        with tf.variable_scope("encoder"):
            mask = attention.attention_mask(ids, features["input_mask"])
            x = transformer(x, mask, config, training)
        with tf.variable_scope("pooler"):
            first = tf.squeeze(x[:, 0:1, :], axis=1)
            pooled = tf.layers.dense(
                first, config["hidden"], tf.tanh, kernel_initializer=initializer(), name="dense"
            )
    return x, pooled


def transformer(x, mask, config, training):
    """Embeddings are projected up once; the one group of weights is used for every layer."""
    x = dense_2d(x, config["hidden"], "embedding_hidden_mapping_in")
    for _ in range(config["layers"]):
        with tf.variable_scope("group_0/inner_group_0", reuse=tf.AUTO_REUSE):
            x = block(x, mask, config, training)
    return x


def block(x, mask, config, training):
    hidden, heads = config["hidden"], config["heads"]
    size = hidden // heads
    with tf.variable_scope("attention_1"):
        with tf.variable_scope("self"):
            query = dense_3d(x, heads, size, "query")
            key = dense_3d(x, heads, size, "key")
            value = dense_3d(x, heads, size, "value")
            attended = attend(query, key, value, mask, config, training)
        with tf.variable_scope("output"):
            attended = dense_3d_proj(attended, hidden, "dense")
    x = layer_norm(dropout(attended, config["dropout"], training) + x, "LayerNorm")
    with tf.variable_scope("ffn_1/intermediate"):
        wide = attention.gelu(dense_2d(x, 2 * hidden, "dense"))
        with tf.variable_scope("output"):
            narrow = dense_2d(wide, hidden, "dense")
    return layer_norm(dropout(narrow, config["dropout"], training) + x, "LayerNorm_1")


def attend(query, key, value, mask, config, training):
    """(b, f, n, h), (b, t, n, h) twice -> (b, f, n, h)."""
    scores = tf.einsum("BTNH,BFNH->BNFT", key, query)
    scores = tf.multiply(scores, 1.0 / float(config["hidden"] // config["heads"]) ** 0.5)
    scores += (1.0 - tf.expand_dims(mask, axis=[1])) * -10000.0
    weights = dropout(tf.nn.softmax(scores), config["dropout"], training)
    return tf.einsum("BNFT,BTNH->BFNH", weights, value)


def dense_2d(x, width, name):
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [x.shape[-1], width], initializer=initializer())
        bias = tf.get_variable("bias", [width], initializer=initializer(0.02))
        return tf.einsum("BFH,HO->BFO", x, kernel) + bias


def dense_3d(x, heads, size, name):
    """(b, f, hidden) -> (b, f, heads, size); the kernel is kept as a matrix."""
    hidden = x.shape[-1].value
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [hidden, heads * size], initializer=initializer())
        bias = tf.get_variable("bias", [heads * size], initializer=initializer(0.02))
        kernel = tf.reshape(kernel, [hidden, heads, size])
        return tf.einsum("BFH,HND->BFND", x, kernel) + tf.reshape(bias, [heads, size])


def dense_3d_proj(x, hidden, name):
    """(b, f, heads, size) -> (b, f, hidden)."""
    heads, size = x.shape[2].value, x.shape[3].value
    with tf.variable_scope(name):
        kernel = tf.get_variable("kernel", [heads * size, hidden], initializer=initializer())
        bias = tf.get_variable("bias", [hidden], initializer=initializer(0.02))
        kernel = tf.reshape(kernel, [heads, size, hidden])
        return tf.einsum("BFND,NDH->BFH", x, kernel) + bias
