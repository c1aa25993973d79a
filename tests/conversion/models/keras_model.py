"""Keras models as TPU users of TF 1.15 write them, and every file in which they keep weights.

Each function is what `--keras` names: it returns a model and knows nothing of batchinfer.
"""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

SEED = 20
CLASSES = 3


def under_tpu_strategy():
    """A functional model with two outputs, built as tutorials for TPUs do."""
    tf.keras.backend.clear_session()
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="grpc://10.0.0.2:8470")
    tf.config.experimental_connect_to_host(resolver.master())
    tf.tpu.experimental.initialize_tpu_system(resolver)
    strategy = tf.distribute.experimental.TPUStrategy(resolver)
    with strategy.scope():
        model = cnn()
        model.compile(
            tf.keras.optimizers.Adam(0.01 * strategy.num_replicas_in_sync),
            {"classes": "sparse_categorical_crossentropy", "score": "mse"},
            metrics=["acc"],
        )
    return model


def for_contrib_tpu():
    """The older way: a model for the CPU, turned into one for TPUs."""
    model = cnn()
    model.compile(tf.train.AdamOptimizer(0.01), ["sparse_categorical_crossentropy", "mse"])
    resolver = tf.contrib.cluster_resolver.TPUClusterResolver("grpc://10.0.0.2:8470")
    strategy = tf.contrib.tpu.TPUDistributionStrategy(resolver)
    return tf.contrib.tpu.keras_to_tpu_model(model, strategy=strategy)


def cnn():
    layers = tf.keras.layers
    image = tf.keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.SeparableConv2D(6, 3, dilation_rate=2, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, dilation_rate=2)(x)
    x = layers.Dropout(0.5)(layers.Flatten()(x))
    classes = layers.Dense(CLASSES, activation="softmax", name="classes")(x)
    score = layers.Dense(1, name="score")(x)
    return tf.keras.Model(image, [classes, score])


def recurrent():
    """Two inputs; masked embeddings; loops of TF 1."""
    layers = tf.keras.layers
    ids = tf.keras.Input((7,), dtype="int32", name="ids")
    extra = tf.keras.Input((2,), name="extra")
    x = layers.Embedding(11, 4, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.GRU(3, dropout=0.3, recurrent_dropout=0.3)(x)
    x = layers.Concatenate()([x, extra])
    return tf.keras.Model([ids, extra], layers.Dense(CLASSES)(x))


def recurrent_of_2_0():
    """The layers of TF 2.0, which put alternatives for cuDNN into the function library."""
    layers = tf.compat.v2.keras.layers
    ids = tf.keras.Input((7,), dtype="int32", name="ids")
    x = layers.Embedding(11, 4)(ids)
    x = layers.LSTM(3, return_sequences=True)(x)
    return tf.keras.Model(ids, layers.Dense(CLASSES)(layers.GRU(3)(x)))


def sequential():
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            layers.Dense(5, activation="relu", input_shape=(4,)),
            layers.Lambda(lambda x: x * tf.rsqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1.0)),
            tf.keras.Sequential([layers.Dense(4), layers.BatchNormalization()]),
            layers.Dense(CLASSES),
        ]
    )


def bfloat16():
    """Computes in bfloat16, as a TPU would; its variables are bfloat16 as well."""
    layers = tf.keras.layers
    image = tf.keras.Input((4,), name="x")
    x = layers.Lambda(lambda x: tf.cast(x, tf.bfloat16))(image)
    x = layers.Dense(5, activation="relu", dtype="bfloat16")(x)
    x = layers.Dense(CLASSES, dtype="bfloat16")(x)
    return tf.keras.Model(image, layers.Lambda(lambda x: tf.cast(x, tf.float32), name="y")(x))


class Subclassed(tf.keras.Model):
    """Attributes in place of a graph of layers."""

    def __init__(self):
        super().__init__()
        self.blocks = [tf.keras.layers.Dense(4, activation="relu") for _ in range(2)]
        self.norm = tf.keras.layers.BatchNormalization()
        self.last = tf.keras.layers.Dense(CLASSES)

    def call(self, x, training=None):
        for block in self.blocks:
            x = block(x)
        return self.last(self.norm(x, training=training))


def subclassed():
    model = Subclassed()
    model(tf.keras.Input((4,), name="x"))
    return model


class Named(tf.keras.Model):
    """Takes and gives dicts, as models that were ported from an Estimator do."""

    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(CLASSES)
        self.embedding = tf.keras.layers.Embedding(11, 2)

    def call(self, inputs, training=False):
        bag = tf.reduce_sum(self.embedding(inputs["ids"]), axis=1)
        return {"scores": self.dense(inputs["x"]), "bag": bag}


def with_dicts():
    model = Named()
    ids = tf.keras.Input((3,), dtype="int32", name="any")
    model({"x": tf.keras.Input((4,)), "ids": ids})
    return model


def failing():
    raise RuntimeError("no TPU in this zone")


MODELS = {
    make.__name__: make
    for make in (
        under_tpu_strategy,
        for_contrib_tpu,
        recurrent,
        recurrent_of_2_0,
        sequential,
        subclassed,
        bfloat16,
    )
}
FORMS = ("weights_h5", "model_h5", "weights_tf", "checkpoint", "saved_model", "exported")


def arrays(model, num_rows, seed=3):
    """Rows for each input, by name: small ids with zeros at the end, or floats."""
    random = np.random.RandomState(seed)
    found = {}
    for name, tensor in zip(model.input_names, model.inputs):
        shape = [num_rows, *tensor.shape.as_list()[1:]]
        if tensor.dtype == tf.int32:
            ids = random.randint(1, 11, shape)
            ids[:, 5:] *= random.randint(0, 2, (num_rows, 1))
            found[name] = ids.astype(np.int32)
        else:
            found[name] = random.normal(size=shape).astype(np.float32)
    return found


def randomize(model):
    """Weights that training could have given: no zeros, no ones; variances above 0."""
    random = np.random.RandomState(SEED)
    weights = model.weights
    values = [random.normal(0, 0.5, one.shape.as_list()) for one in weights]
    values = [
        np.abs(value) + 0.5 if "variance" in one.name else value
        for one, value in zip(weights, values)
    ]
    tf.keras.backend.get_session().run(
        [tf.assign(one, tf.cast(value, one.dtype)) for one, value in zip(weights, values)]
    )


def save(model, form, folder):
    """Write one form; returns the path that convert.py is given."""
    path = os.path.join(folder, form)
    if form == "weights_h5":
        path += ".h5"
        model.save_weights(path)
    elif form == "model_h5":
        path += ".h5"
        model.save(path)
    elif form == "weights_tf":
        model.save_weights(path, save_format="tf")
    elif form == "checkpoint":
        holder = (
            tf.train.Checkpoint(optimizer=model.optimizer, net=model)
            if (model.optimizer)
            else tf.train.Checkpoint(net=model)
        )
        path = holder.save(path, session=tf.keras.backend.get_session())
    elif form == "saved_model":
        tf.saved_model.save(model, path)
    else:
        tf.keras.experimental.export_saved_model(model, path)
    return path
