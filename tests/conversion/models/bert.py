"""A BERT-like classifier: one-hot lookups on the TPU, an input that no prediction needs."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tests.conversion.models import attention
from tests.conversion.models.attention import dropout, get_shape_list, initializer, layer_norm

LENGTH = 12
FEATURES = {
    "input_ids": ("int32", (LENGTH,)),
    "input_mask": ("int32", (LENGTH,)),
    "segment_ids": ("int32", (LENGTH,)),
    "label_ids": ("int32", ()),
}


def params():
    return {
        "vocab_size": 100,
        "hidden": 16,
        "heads": 2,
        "layers": 2,
        "intermediate": 32,
        "max_positions": 16,
        "dropout": 0.1,
        "num_labels": 3,
        "learning_rate": 0.01,
        "use_bfloat16": False,
        "init_checkpoint": None,
    }


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    lengths = random.randint(3, LENGTH + 1, num_rows)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int32)
    ids = random.randint(1, params()["vocab_size"], (num_rows, LENGTH)).astype(np.int32)
    return {
        "input_ids": ids * mask,
        "input_mask": mask,
        "segment_ids": (np.arange(LENGTH) >= lengths[:, None] // 2).astype(np.int32) * mask,
        "label_ids": random.randint(0, params()["num_labels"], num_rows).astype(np.int32),
    }


def make_labels(num_rows, seed):
    return {}


def model_fn(features, labels, mode, params):
    """Classify; the labels are a feature, as the input pipeline leaves them."""
    training = mode == tf.estimator.ModeKeys.TRAIN
    if params["use_bfloat16"]:
        with tf.tpu.bfloat16_scope():
            logits = tf.cast(classify(features, params, training), tf.float32)
    else:
        logits = classify(features, params, training)
    probabilities = tf.nn.softmax(logits, axis=-1)
    scaffold_fn = None
    if params["init_checkpoint"]:
        scaffold_fn = warm_start(params["init_checkpoint"], params["use_tpu"])
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.tpu.TPUEstimatorSpec(
            mode=mode, predictions={"probabilities": probabilities}, scaffold_fn=scaffold_fn
        )
    one_hot = tf.one_hot(features["label_ids"], depth=params["num_labels"], dtype=tf.float32)
    loss = tf.reduce_mean(-tf.reduce_sum(one_hot * tf.nn.log_softmax(logits), axis=-1))
    optimizer = attention.WeightDecayAdam(params["learning_rate"])
    return tf.estimator.tpu.TPUEstimatorSpec(
        mode=mode,
        loss=loss,
        train_op=attention.train_op(loss, optimizer, params["use_tpu"]),
        scaffold_fn=scaffold_fn,
    )


def warm_start(path, use_tpu):
    """Start from another checkpoint: at once on a host, in a scaffold_fn on a TPU."""
    present = {name for name, _ in tf.train.list_variables(path)}
    names = [variable.op.name for variable in tf.trainable_variables()]
    assignment = {name: name for name in names if name in present}
    if not use_tpu:
        tf.train.init_from_checkpoint(path, assignment)
        return None

    def scaffold_fn():
        tf.train.init_from_checkpoint(path, assignment)
        return tf.train.Scaffold()

    return scaffold_fn


def classify(features, config, training):
    pooled = encode(features, config, training)
    weights = tf.get_variable(
        "output_weights", [config["num_labels"], config["hidden"]], initializer=initializer()
    )
    bias = tf.get_variable(
        "output_bias", [config["num_labels"]], initializer=tf.zeros_initializer()
    )
    with tf.variable_scope("loss"):
        pooled = dropout(pooled, config["dropout"], training)
        return tf.nn.bias_add(tf.matmul(pooled, weights, transpose_b=True), bias)


def encode(features, config, training):
    """(b, s) ids -> (b, hidden): the pooled first token."""
    with tf.variable_scope("bert"):
        with tf.variable_scope("embeddings"):
            x, _ = attention.embedding_lookup(
                features["input_ids"],
                config["vocab_size"],
                config["hidden"],
                "word_embeddings",
                config["use_tpu"],
            )
            if config["use_bfloat16"]:
                x = tf.cast(x, tf.bfloat16)
            x = postprocess(x, features["segment_ids"], config, training)
        with tf.variable_scope("encoder"):
            mask = attention.attention_mask(features["input_ids"], features["input_mask"])
            x = transformer(x, tf.cast(mask, x.dtype), config, training)
        with tf.variable_scope("pooler"):
            first = tf.squeeze(x[:, 0:1, :], axis=1)
            return dense(first, config["hidden"], tf.tanh, "dense")


def postprocess(x, segment_ids, config, training):
    """Add token types (always by one-hot) and positions; normalise."""
    batch, length, width = get_shape_list(x, expected_rank=3)
    types = tf.get_variable("token_type_embeddings", [2, width], initializer=initializer())
    types = tf.cast(types, x.dtype)
    one_hot = tf.one_hot(tf.reshape(segment_ids, [-1]), depth=2, dtype=x.dtype)
    x += tf.reshape(tf.matmul(one_hot, types), [batch, length, width])
    check = tf.assert_less_equal(length, config["max_positions"])
    with tf.control_dependencies([check]):
        table = tf.get_variable(
            "position_embeddings", [config["max_positions"], width], initializer=initializer()
        )
        positions = tf.slice(tf.cast(table, x.dtype), [0, 0], [length, -1])
    x += tf.reshape(positions, [1, length, width])
    return dropout(layer_norm(x, "LayerNorm"), config["dropout"], training)


def dense(x, width, activation, name):
    return tf.layers.dense(
        x, width, activation=activation, kernel_initializer=initializer(), name=name
    )


def transformer(x, mask, config, training):
    """(b, s, width) -> (b, s, width); works on (b * s, width) between reshapes."""
    batch, length, width = get_shape_list(x, expected_rank=3)
    layer = tf.reshape(x, [-1, width])
    for index in range(config["layers"]):
        with tf.variable_scope(f"layer_{index}"):
            with tf.variable_scope("attention"):
                with tf.variable_scope("self"):
                    heads = self_attention(layer, mask, batch, length, config, training)
                with tf.variable_scope("output"):
                    heads = dense(heads, width, None, "dense")
                    heads = dropout(heads, config["dropout"], training)
                    heads = layer_norm(heads + layer, "LayerNorm")
            with tf.variable_scope("intermediate"):
                wide = dense(heads, config["intermediate"], attention.gelu, "dense")
            with tf.variable_scope("output"):
                narrow = dropout(dense(wide, width, None, "dense"), config["dropout"], training)
                layer = layer_norm(narrow + heads, "LayerNorm")
    return tf.reshape(layer, [batch, length, width])


def self_attention(x, mask, batch, length, config, training):
    size = config["hidden"] // config["heads"]

    def split(name):
        found = dense(x, config["hidden"], None, name)
        found = tf.reshape(found, [batch, length, config["heads"], size])
        return tf.transpose(found, [0, 2, 1, 3])

    query, key, value = split("query"), split("key"), split("value")
    scores = tf.multiply(tf.matmul(query, key, transpose_b=True), 1.0 / float(size) ** 0.5)
    scores += (1.0 - tf.expand_dims(mask, axis=[1])) * -10000.0
    weights = dropout(tf.nn.softmax(scores), config["dropout"], training)
    context = tf.transpose(tf.matmul(weights, value), [0, 2, 1, 3])
    return tf.reshape(context, [batch * length, config["heads"] * size])
