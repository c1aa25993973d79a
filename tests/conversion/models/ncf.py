"""A recommender of Keras layers inside a model_fn, whose dropout asks Keras for its phase."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

USERS, ITEMS = 40, 70
FEATURES = {"user_id": ("int32", (1,)), "item_id": ("int32", (1,))}


def params():
    return {"factors": 4, "layers": [8, 4], "dropout": 0.3, "learning_rate": 0.02}


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    return {
        "user_id": random.randint(0, USERS, (num_rows, 1)).astype(np.int32),
        "item_id": random.randint(0, ITEMS, (num_rows, 1)).astype(np.int32),
    }


def make_labels(num_rows, seed):
    return {"rated": np.random.RandomState(seed).randint(0, 2, (num_rows, 1)).astype(np.int32)}


def model_fn(features, labels, mode, params):
    training = mode == tf.estimator.ModeKeys.TRAIN
    layers = tail(params)
    logits = network(features, layers, params, training)
    if mode == tf.estimator.ModeKeys.PREDICT:
        found = {"logits": logits, "item_id": tf.identity(features["item_id"])}
        return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, predictions=found)
    wanted = tf.cast(labels["rated"], tf.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits))
    optimizer = tf.train.AdamOptimizer(params["learning_rate"], epsilon=1e-6)
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(
        mode=mode, loss=loss, train_op=tf.group(update, layers.updates)
    )


def tail(params):
    """Dense, batch norm and dropout for each width, then the logit."""
    layers = tf.keras.Sequential(name="mlp")
    for index, width in enumerate(params["layers"]):
        layers.add(tf.keras.layers.Dense(width, activation="relu", name=f"dense_{index}"))
        layers.add(tf.keras.layers.BatchNormalization(momentum=0.9, name=f"norm_{index}"))
        layers.add(tf.keras.layers.Dropout(params["dropout"], name=f"dropout_{index}"))
    return layers


def network(features, layers, params, training):
    """(b, 1) ids twice -> (b, 1): matrix factors beside a perceptron."""

    def embedded(name, size):
        layer = tf.keras.layers.Embedding(size, 2 * params["factors"], name="embed_" + name)
        return tf.squeeze(layer(features[name + "_id"]), axis=1)

    user, item = embedded("user", USERS), embedded("item", ITEMS)
    factors = user[:, : params["factors"]] * item[:, : params["factors"]]
    joined = tf.concat([user[:, params["factors"] :], item[:, params["factors"] :]], axis=1)
    # When predicting, nothing is said: the layers ask for Keras's learning phase, which is 0.
    deep = layers(joined, training=True) if training else layers(joined)
    return tf.keras.layers.Dense(1, name="logit")(tf.concat([factors, deep], axis=1))
