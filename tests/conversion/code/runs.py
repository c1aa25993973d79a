"""A model's checkpoint with random values, and its run without a TPU; nothing of ours is used."""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf


def save_random(folder, build, seed=5):
    """Write folder/model.ckpt-7 with all variables that `build()` makes; moments are positive."""
    random = np.random.RandomState(seed)
    with tf.Graph().as_default(), tf.Session() as session:
        step = tf.train.get_or_create_global_step()
        build()
        session.run(tf.global_variables_initializer())
        for variable in sorted(tf.global_variables(), key=lambda one: one.name):
            if variable.dtype.base_dtype == tf.float32:
                value = random.uniform(0.2, 1.0, variable.shape.as_list())
                sign = random.choice([-1, 1], value.shape) if "variance" not in variable.name else 1
                variable.load(value * sign, session)
        step.load(7, session)
        return tf.train.Saver().save(session, os.path.join(folder, "model.ckpt"), step)


def run(build, checkpoint, feeds):
    """What `build(features)` predicts, restored as an Estimator restores it.

    Args:
        build: from placeholders to (predictions, saver or None).
    """
    with tf.Graph().as_default(), tf.Session() as session:
        fed = tf.nest.map_structure(
            lambda array: tf.placeholder(array.dtype, (None,) + array.shape[1:]), feeds
        )
        predictions, saver = build(fed)
        needed = saver or tf.train.Saver()
        needed.restore(session, checkpoint)
        pairs = zip(tf.nest.flatten(fed), tf.nest.flatten(feeds))
        return session.run(predictions, dict(pairs))


def scaffold_saver(spec):
    scaffold = spec.scaffold_fn() if spec.scaffold_fn else None
    return scaffold.saver if scaffold else None
