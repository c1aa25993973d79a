"""A recommender with TPU embedding columns: shared, weighted and dense features."""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.tpu import feature_column as tpu_columns


def columns():
    query = tf.feature_column.categorical_column_with_identity("query", 11)
    user = tf.feature_column.categorical_column_with_identity("user", 7)
    friend = tf.feature_column.categorical_column_with_identity("friend", 7)
    weighted = tf.feature_column.weighted_categorical_column(query, "query_weight")
    found = [tpu_columns.embedding_column(weighted, 3, combiner="sum")]
    found += tpu_columns.shared_embedding_columns([user, friend], 2)
    item = tf.feature_column.categorical_column_with_identity("item", 5)
    return found, [tf.tpu.experimental.embedding_column(item, 4, combiner="mean")]


def model_fn(features, labels, mode, params):
    del labels, params
    first, second = columns()
    with tf.variable_scope("tower"):
        x = tf.feature_column.input_layer(features, first)
    dense = tf.keras.layers.DenseFeatures(second)(features)
    logits = tf.layers.dense(tf.concat([x, dense], axis=1), 1, name="score")
    return tf.contrib.tpu.TPUEstimatorSpec(mode=mode, predictions={"score": tf.sigmoid(logits)})
