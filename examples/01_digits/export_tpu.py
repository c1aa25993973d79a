"""Writes the two artifacts that TPU users have: python examples/01_digits/export_tpu.py

    DIR/artifacts/rewrite/predict.{meta,index,data-*}   tf.tpu.rewrite around PREDICT, batch of 128
        image:0          uint8    [128, 8, 8, 1]
        probabilities:0  float32  [128, 10]
        classes:0        int32    [128]
    DIR/artifacts/saved_model_tpu/                      TPUEstimator.export_saved_model, any batch
    DIR/reference.npz                                   inputs and outputs of the model without TPU

Building these graphs takes no TPU; running them would.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil

import quiet  # noqa: F401  before TensorFlow is imported

# isort: split
import digits
import numpy as np
import tensorflow.compat.v1 as tf
from model import model_fn
from predict import predict_without_tpu
from train import make_estimator

BATCH_SIZE = 128  # XLA compiles a TPU program for one static batch size


def export_rewrite(model_dir, out):
    """The MetaGraph of a prediction script on a TPU, and the training checkpoint beside it.

    The files are named as `Saver.save(session, "predict")` names them. The checkpoint is copied
    byte by byte, so it holds what training left in it: Adam's slots and `global_step` too.
    """
    os.makedirs(out)
    with tf.Graph().as_default():
        tf.tpu.initialize_system()
        image = tf.placeholder(tf.uint8, (BATCH_SIZE,) + digits.IMAGE_SHAPE, name="image")

        def predict(image):
            params = {"use_tpu": True, "use_bfloat16": True, "batch_size": BATCH_SIZE}
            spec = model_fn({"image": image}, None, tf.estimator.ModeKeys.PREDICT, params)
            return spec.predictions["probabilities"], spec.predictions["classes"]

        probabilities, classes = tf.tpu.rewrite(predict, [image])
        probabilities = tf.identity(probabilities, name="probabilities")
        classes = tf.identity(classes, name="classes")
        tf.tpu.shutdown_system()

        meta_graph = tf.train.Saver().export_meta_graph(clear_extraneous_savers=True)
        meta_graph.signature_def["serving_default"].CopyFrom(
            tf.saved_model.predict_signature_def(
                {"image": image}, {"probabilities": probabilities, "classes": classes}
            )
        )
    with open(os.path.join(out, "predict.meta"), "wb") as file:
        file.write(meta_graph.SerializeToString())
    checkpoint = tf.train.latest_checkpoint(model_dir)
    for name in glob.glob(checkpoint + ".index") + glob.glob(checkpoint + ".data-*"):
        shutil.copyfile(name, os.path.join(out, "predict" + name[len(checkpoint) :]))
    tf.train.update_checkpoint_state(out, os.path.join(out, "predict"))


def export_saved_model(model_dir, out):
    """The SavedModel with the tags serve and tpu that TPUEstimator exports.

    `export_to_cpu=False` leaves out the second, TPU-free graph: many exports have only this one.
    `place_pruned_graph` lets a session that has no TPU restore the variables into the export.
    """
    estimator = make_estimator(
        model_dir,
        use_tpu=True,
        export_to_cpu=False,
        session_config=tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True)),
    )
    exported = estimator.export_saved_model(out + ".exports", serving_input_receiver_fn)
    os.rename(exported, out.encode())  # out of the folder named by the time of the export
    os.rmdir(out + ".exports")


def serving_input_receiver_fn():
    image = tf.placeholder(tf.uint8, (None,) + digits.IMAGE_SHAPE, name="image")
    return tf.estimator.export.ServingInputReceiver({"image": image}, {"image": image})


def write_reference(model_dir, path):
    """The held-out images and what the model says of them when no TPU is involved."""
    _, held_out = digits.load()
    arrays = {"inputs/image": held_out.images}
    for name, values in predict_without_tpu(model_dir, held_out.images).items():
        arrays["outputs/" + name] = values
    np.savez(path, **arrays)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default="build/demo", help="everything is written below it")
    root = parser.parse_args(argv).dir
    model_dir = os.path.join(root, "train")
    artifacts = os.path.join(root, "artifacts")
    shutil.rmtree(artifacts, ignore_errors=True)

    export_rewrite(model_dir, os.path.join(artifacts, "rewrite"))
    export_saved_model(model_dir, os.path.join(artifacts, "saved_model_tpu"))
    write_reference(model_dir, os.path.join(root, "reference.npz"))
    print(f"tf.tpu.rewrite MetaGraph and checkpoint: {artifacts}/rewrite/predict.meta")
    print(f"TPU SavedModel (tags serve, tpu):        {artifacts}/saved_model_tpu")
    print(f"reference predictions without TPU:       {root}/reference.npz")


if __name__ == "__main__":
    main()
