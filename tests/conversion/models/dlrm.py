"""A DLRM-like recommender: TPU embedding columns, one table shared, and dot products."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tensorflow.python.tpu import tpu_embedding, tpu_function
from tensorflow_estimator.python.estimator.tpu import _tpu_estimator_embedding, tpu_estimator

EXPORT_API = "V2"  # lookups on the host, the rest on a core
WIDTH = 4
SIZES = {"user": 30, "seen": 25, "item": 25, "context": 11}
FEATURES = {
    "dense": ("float32", (5,)),
    "user": ("int64", (1,)),
    "seen": ("int64", (4,)),  # items seen before; -1 where there are fewer
    "item": ("int64", (1,)),
    "context": ("int64", (3,)),
}


def params():
    return {"learning_rate": 0.1, "bottom": [8, WIDTH], "top": [8, 1]}


def make_features(num_rows, seed):
    random = np.random.RandomState(seed)
    ids = {
        name: random.randint(0, size, (num_rows,) + FEATURES[name][1]).astype(np.int64)
        for name, size in SIZES.items()
    }
    ids["seen"][:, 1:][random.rand(num_rows, 3) < 0.4] = -1
    return {"dense": random.rand(num_rows, 5).astype(np.float32), **ids}


def make_labels(num_rows, seed):
    return {"clicked": np.random.RandomState(seed).randint(0, 2, (num_rows, 1)).astype(np.int32)}


def columns():
    """Columns that are lookups on a CPU, and the TPU's embedding memory on a TPU."""
    ids = {
        name: tf.feature_column.categorical_column_with_identity(name, size)
        for name, size in SIZES.items()
    }
    start = tf.truncated_normal_initializer(stddev=0.5)
    shared = tf.tpu.experimental.shared_embedding_columns(
        [ids["seen"], ids["item"]], WIDTH, combiner="mean", initializer=start
    )
    alone = [
        tf.tpu.experimental.embedding_column(ids[name], WIDTH, combiner="sum", initializer=start)
        for name in ("user", "context")
    ]
    return alone + list(shared)


def model_fn(features, labels, mode, params):
    """Lookups, then the dense part; when exporting, only the dense part goes to the TPU."""
    vectors = tf.keras.layers.DenseFeatures(columns(), name="embeddings")(features)
    if mode == tf.estimator.ModeKeys.PREDICT:
        logits = predict(features["dense"], vectors, params)
        found = {"click": tf.nn.sigmoid(logits)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, predictions=found)
    logits = network(features["dense"], vectors, params)
    wanted = tf.cast(labels["clicked"], tf.float32)
    loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=logits))
    optimizer = tf.train.AdagradOptimizer(params["learning_rate"])
    if params["use_tpu"]:
        optimizer = tf.tpu.CrossShardOptimizer(optimizer)
    update = optimizer.minimize(loss, global_step=tf.train.get_or_create_global_step())
    return tf.estimator.tpu.TPUEstimatorSpec(mode=mode, loss=loss, train_op=update)


def predict(dense, vectors, params):
    """On the host, on a core, or, for TPU serving (API V2), batched from the host to a core."""
    on_core = tpu_function.get_tpu_context().number_of_shards is not None
    if not params["use_tpu"] or on_core:
        return network(dense, vectors, params)
    (logits,) = tpu_estimator.inference_on_tpu(
        lambda *inputs: network(*inputs, params=params),
        [dense, vectors],
        num_batch_threads=1,
        max_batch_size=64,
        batch_timeout_micros=100,
    )
    return tf.reshape(logits, [-1, 1])


def network(dense, vectors, params):
    """(b, 5) dense, (b, columns * WIDTH) looked up -> (b, 1) logits."""
    with tf.variable_scope("bottom"):
        x = perceptron(dense, params["bottom"])
    vectors = tf.reshape(vectors, [-1, len(SIZES), WIDTH])
    stacked = tf.concat([tf.expand_dims(x, 1), vectors], axis=1)
    dots = tf.matmul(stacked, stacked, transpose_b=True)
    size = len(SIZES) + 1
    flat = tf.reshape(dots, [-1, size * size])
    upper = [row * size + column for row in range(size) for column in range(row + 1, size)]
    crossed = tf.gather(flat, upper, axis=1)
    with tf.variable_scope("top"):
        return perceptron(tf.concat([x, crossed], axis=1), params["top"])


def perceptron(x, widths):
    for index, width in enumerate(widths):
        last = index == len(widths) - 1
        x = tf.layers.dense(x, width, None if last else tf.nn.relu, name=f"dense_{index}")
    return x


def on_core(batch_rows, replicas):
    """What TPUEstimator does on each core: the embedding memory's activations as features."""
    tables, features, _ = _tpu_estimator_embedding.get_configs_from_feature_columns(columns())
    embedding = tpu_embedding.TPUEmbedding(
        tables,
        features,
        batch_rows,
        tpu_embedding.INFERENCE,
        device_config=tpu_embedding.DeviceConfig(
            num_hosts=1, num_cores=replicas, job_name="worker"
        ),
    )
    return lambda fed: {**fed, **embedding.get_activations()}
