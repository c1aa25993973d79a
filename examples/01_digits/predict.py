"""The same model without a TPU, in plain TensorFlow: what the right predictions are."""

from __future__ import annotations

import quiet  # noqa: F401  before TensorFlow is imported

# isort: split
import numpy as np
import tensorflow.compat.v1 as tf
from digits import IMAGE_SHAPE
from model import model_fn


def predict_without_tpu(model_dir, images):
    """Restore the training checkpoint into the float32 graph and run it in one batch.

    Args:
        model_dir: what `train.py` wrote.
        images: uint8 [n, 8, 8, 1].

    Returns:
        {"probabilities": float32 [n, 10], "classes": int32 [n]}
    """
    with tf.Graph().as_default(), tf.Session() as session:
        image = tf.placeholder(tf.uint8, (None,) + IMAGE_SHAPE)
        params = {"use_tpu": False, "use_bfloat16": False}
        spec = model_fn({"image": image}, None, tf.estimator.ModeKeys.PREDICT, params)
        tf.train.Saver().restore(session, tf.train.latest_checkpoint(model_dir))
        return session.run(spec.predictions, {image: np.asarray(images, np.uint8)})
