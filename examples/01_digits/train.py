"""Trains the model through TPUEstimator: python examples/01_digits/train.py

`use_tpu=False` stands in for the TPU that you have and this machine has not. The checkpoint
is the one a TPU writes: the same variable names, Adam's slots and `global_step` among them.
"""

from __future__ import annotations

import argparse
import os
import shutil

import quiet  # noqa: F401  before TensorFlow is imported

# isort: split
import digits
import tensorflow.compat.v1 as tf
from model import model_fn

BATCH_SIZE = 128
LEARNING_RATE = 0.01
STEPS = 600  # 53 epochs of 1,437 images


def make_estimator(model_dir, use_tpu=False, session_config=None, **kwargs):
    """The TPUEstimator of this model; `use_tpu=True` needs a TPU for everything but exporting."""
    return tf.estimator.tpu.TPUEstimator(
        model_fn=model_fn,
        use_tpu=use_tpu,
        config=tf.estimator.tpu.RunConfig(
            model_dir=model_dir, tf_random_seed=1, session_config=session_config
        ),
        params={
            "use_bfloat16": use_tpu,
            "learning_rate": LEARNING_RATE,
            "model_dir": model_dir,
        },
        train_batch_size=BATCH_SIZE,
        eval_batch_size=BATCH_SIZE,
        predict_batch_size=BATCH_SIZE,
        **kwargs,
    )


def train_input_fn(params):
    train, _ = digits.load()
    shuffled = _images_and_labels(train).shuffle(2000, seed=1).repeat()
    return shuffled.batch(params["batch_size"], drop_remainder=True)


def eval_input_fn(params):
    _, held_out = digits.load()
    return _images_and_labels(held_out).batch(params["batch_size"])


def _images_and_labels(part):
    return tf.data.Dataset.from_tensor_slices(({"image": part.images}, part.labels.astype("int32")))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default="build/demo", help="everything is written below it")
    parser.add_argument("--steps", type=int, default=STEPS)
    flags = parser.parse_args(argv)

    model_dir = os.path.join(flags.dir, "train")
    shutil.rmtree(model_dir, ignore_errors=True)  # TPUEstimator would go on where it stopped
    estimator = make_estimator(model_dir)
    estimator.train(train_input_fn, max_steps=flags.steps)
    accuracy = estimator.evaluate(eval_input_fn, steps=None)["accuracy"]
    print(f"trained {flags.steps} steps: {tf.train.latest_checkpoint(model_dir)}")
    print(f"accuracy on 360 held-out digits: {accuracy:.4f}")


if __name__ == "__main__":
    main()
