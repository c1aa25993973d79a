"""TPU artifacts as TensorFlow 1.15's own API writes them, small, seeded, and built without a TPU.

The model is a bfloat16 convolution with batch norm and a dense layer, trained with Adam for a
few steps on the host; a TPU would write the same variable names and slots.
"""

from __future__ import annotations

import os

import numpy as np

from batchinfer.tf1 import tf

NUM_CLASSES = 3
BATCH_ROWS = 8
SEED = 20


def logits(image, training, precision):
    """(n, 8, 8, 1) float32 -> (n, 3) float32 logits, computed in `precision`."""
    if precision == tf.bfloat16:
        with tf.tpu.bfloat16_scope(), tf.variable_scope("net"):
            return tf.cast(body(tf.cast(image, precision), training), tf.float32)
    with tf.variable_scope("net"):
        return body(image, training)


def body(x, training):
    x = tf.layers.conv2d(x, 4, 3, name="conv", use_bias=False)
    x = tf.layers.batch_normalization(x, training=training, fused=True, name="norm")
    x = tf.nn.relu(x) * tf.constant(0.7, x.dtype, name="scale")
    x = tf.layers.max_pooling2d(x, 2, 2)
    return tf.layers.dense(tf.layers.flatten(x), NUM_CLASSES, name="dense")


def predictions(image, precision):
    scores = logits(image, training=False, precision=precision)
    return {"probabilities": tf.nn.softmax(scores), "classes": tf.argmax(scores, axis=1)}


def images(num_rows, seed=SEED):
    return np.random.RandomState(seed).rand(num_rows, 8, 8, 1).astype(np.float32)


def train(folder, num_steps=5):
    """Write `folder`/model.ckpt-5 with Adam slots, global_step and moved batch statistics."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(SEED)
        labels = tf.constant(np.arange(16) % NUM_CLASSES)
        scores = logits(tf.constant(images(16)), training=True, precision=tf.float32)
        loss = tf.losses.sparse_softmax_cross_entropy(labels, scores)
        step = tf.train.get_or_create_global_step()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            update = tf.train.AdamOptimizer(0.01).minimize(loss, global_step=step)
        session.run(tf.global_variables_initializer())
        for _ in range(num_steps):
            session.run(update)
        return tf.train.Saver().save(
            session, os.path.join(folder, "model.ckpt"), global_step=step, write_meta_graph=False
        )


def save_rewrite_graph(path, precision, batch_rows=BATCH_ROWS):
    """Write the MetaGraph of `tpu.rewrite`: image:0 -> output_0_shard_0:0, output_1_shard_0:0."""
    with tf.Graph().as_default():
        image = tf.placeholder(tf.float32, [batch_rows, 8, 8, 1], name="image")

        def infer(image):
            found = predictions(image, precision)
            return [found["probabilities"], found["classes"]]

        with tf.variable_scope("", use_resource=True):
            tf.tpu.rewrite(infer, [image])
        tf.train.Saver()
        tf.train.export_meta_graph(path, clear_devices=False)
    return path


def reference(checkpoint, image):
    """The predictions of the same model run without a TPU in float32."""
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.placeholder(tf.float32, [None, 8, 8, 1])
        found = predictions(fed, tf.float32)
        tf.train.Saver().restore(session, checkpoint)
        return session.run(found, {fed: image})


def export_saved_model(folder, checkpoint, precision, with_cpu_graph):
    """Export through TPUEstimator: tags {serve,tpu}, and {serve} as well if `with_cpu_graph`."""

    def model_fn(features, labels, mode, params):
        del labels, params
        found = predictions(features["image"], precision)
        outputs = {"serving_default": tf.estimator.export.PredictOutput(found)}
        return tf.estimator.tpu.TPUEstimatorSpec(mode, predictions=found, export_outputs=outputs)

    def receiver():
        image = tf.placeholder(tf.float32, [None, 8, 8, 1], name="image")
        return tf.estimator.export.ServingInputReceiver({"image": image}, {"image": image})

    # Lets the saver run beside TPU ops that this machine has no kernel for.
    session_config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    estimator = tf.estimator.tpu.TPUEstimator(
        model_fn=model_fn,
        config=tf.estimator.tpu.RunConfig(
            model_dir=os.path.join(folder, "model_dir"), session_config=session_config
        ),
        use_tpu=True,
        train_batch_size=8,
        predict_batch_size=8,
        export_to_tpu=True,
        export_to_cpu=with_cpu_graph,
    )
    written = estimator.export_saved_model(folder, receiver, checkpoint_path=checkpoint)
    return written.decode()
