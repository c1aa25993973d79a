"""A model of wide features: strings looked up and hashed on the host, a partitioned table."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

VOCABULARY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "countries.txt")
COUNTRIES = ["at", "br", "ch", "de", "fr", "jp", "ke"]  # what the file holds
BUCKETS = 20
FEATURES = {
    "country": ("string", ()),
    "query": ("string", ()),
    "amounts": ("float32", (3,)),
}


def params():
    return {"width": 5, "learning_rate": 0.1}


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    countries = random.choice(COUNTRIES + ["xx", ""], num_rows)
    queries = [f"query {number}" for number in random.randint(0, 1000, num_rows)]
    return {
        "country": np.array([text.encode() for text in countries], object),
        "query": np.array([text.encode() for text in queries], object),
        "amounts": random.rand(num_rows, 3).astype(np.float32),
    }


def make_labels(num_rows, seed):
    return {"price": np.random.RandomState(seed).rand(num_rows).astype(np.float32)}


def host(features):
    """Strings to ids, which is all that a TPU can take."""
    table = tf.contrib.lookup.index_table_from_file(VOCABULARY, num_oov_buckets=2)
    return {
        "country": tf.cast(table.lookup(features["country"]), tf.int32),
        "query": tf.cast(tf.string_to_hash_bucket_fast(features["query"], BUCKETS), tf.int32),
        "amounts": tf.log1p(features["amounts"]),
    }


def model_fn(features, labels, mode, params):
    price = network(features, params)
    if mode == tf.estimator.ModeKeys.PREDICT:
        return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, predictions={"price": price})
    loss = tf.losses.mean_squared_error(labels["price"], price)
    optimizer = tf.train.FtrlOptimizer(params["learning_rate"])
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, loss=loss, train_op=update)


def network(features, params):
    """(b,) ids twice and (b, 3) amounts -> (b,) prices."""
    size = len(COUNTRIES) + 2
    with tf.variable_scope("wide", partitioner=tf.fixed_size_partitioner(3)):
        country = tf.get_variable("country", [size, params["width"]])
        query = tf.get_variable("query", [BUCKETS, params["width"]])
    found = [
        tf.nn.embedding_lookup(country, features["country"], partition_strategy="div"),
        tf.nn.embedding_lookup(query, features["query"], partition_strategy="div"),
        features["amounts"],
    ]
    with tf.variable_scope("deep"):
        x = tf.layers.dense(tf.concat(found, axis=1), 6, tf.nn.elu, name="hidden")
        return tf.squeeze(tf.layers.dense(x, 1, name="price"), axis=-1)
