"""Each input form of a model, written to disk by TensorFlow 1.15's own API.

A function here has the name of its form, takes (model, checkpoint, folder), and returns the
arguments of `ConvertOptions` that convert it.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Dict

import tensorflow as tf
import yaml
from tensorflow_estimator.python.estimator.tpu import tpu_estimator

from tests.conversion.models.harness import Model, constants, predict_saver

EXPORT_APIS = tpu_estimator.ExportSavedModelApiVersion
PREDICT = tf.estimator.ModeKeys.PREDICT


def serve(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """What TPUEstimator writes by default: {serve} beside {serve, tpu}."""
    return {"source": _export(model, checkpoint, os.path.join(folder, "serve"), True)}


def tpu(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """{serve, tpu} alone: the body in a function behind TPUPartitionedCall."""
    return {"source": _export(model, checkpoint, os.path.join(folder, "tpu"), False)}


def rewrite(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """The MetaGraph of `tpu.rewrite`: one core, static batch."""

    def build(computation: Any, inputs: Any) -> Any:
        return tf.tpu.rewrite(computation, inputs)

    path = os.path.join(folder, "rewrite.meta")
    return _save_predict_graph(model, checkpoint, path, build, replicas=1)


def replicate(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """The MetaGraph of `tpu.batch_parallel`: the batch split over `model.replicas` cores."""

    def build(computation: Any, inputs: Any) -> Any:
        return tf.tpu.batch_parallel(computation, inputs, num_shards=model.replicas)

    path = os.path.join(folder, "replicate.meta")
    return _save_predict_graph(model, checkpoint, path, build, replicas=model.replicas)


def model_fn(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """The user's code, params.yaml and features.yaml beside the checkpoint."""
    from conversion.options import ModelCode

    params = {**model.module.params(), **model.file_params}
    with tf.Graph().as_default():  # what model_fn takes: as the host's part leaves it
        taken = model.host(model.placeholders(None))
        features = {
            name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
            for name, tensor in sorted(taken.items())
        }
    code = ModelCode(
        model_fn=f"{model.module.__name__}:model_fn",
        params=_write_yaml(os.path.join(folder, "params.yaml"), params),
        features=_write_yaml(os.path.join(folder, "features.yaml"), features),
    )
    return {"source": checkpoint, "code": code}


def training_meta(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """The MetaGraph of a training loop as TPUEstimator builds it: infeed, loop, all-reduce."""
    path = os.path.join(folder, "training.meta")
    with tf.Graph().as_default(), tf.variable_scope("", use_resource=True):
        tf.train.get_or_create_global_step()
        _training_loop(model)
        tf.train.Saver()
        tf.train.export_meta_graph(path, clear_devices=False)
    return {"source": path, "checkpoint": checkpoint}


def checkpoint(model: Model, checkpoint: str, folder: str) -> Dict[str, Any]:
    """Nothing but the variables."""
    return {"source": checkpoint}


def _save_predict_graph(
    model: Model, checkpoint: str, path: str, build: Any, replicas: int
) -> Dict[str, Any]:
    """Write the MetaGraph; name the tensors as a user has to."""
    names = sorted(model.module.FEATURES)
    found: Dict[str, Any] = {}
    with tf.Graph().as_default():
        fed = model.placeholders(model.batch_rows)
        on_host = model.host(fed)
        keys = sorted(on_host)
        on_core = model.on_core(replicas)

        def computation(*tensors: Any) -> Any:
            rows = int(tensors[0].shape[0])
            params = model.params(use_tpu=True, batch_rows=rows)
            features = on_core(dict(zip(keys, tensors)))
            spec = model.module.model_fn(features, None, PREDICT, params)
            found.update(spec=spec, names=sorted(spec.predictions))
            return [spec.predictions[name] for name in found["names"]]

        with tf.variable_scope("", use_resource=True):
            outputs = build(computation, [on_host[key] for key in keys])
        predict_saver(found["spec"], model.weights)
        tf.train.export_meta_graph(path, clear_devices=False)
    return {
        "source": path,
        "checkpoint": checkpoint,
        "inputs": {name: fed[name].name for name in names},
        "outputs": {name: tensor.name for name, tensor in zip(found["names"], outputs)},
    }


def _export(model: Model, checkpoint: str, folder: str, with_cpu_graph: bool) -> str:
    """Export through TPUEstimator; returns the SavedModel's folder."""

    def exported(features: Any, labels: Any, mode: str, params: Any) -> Any:
        # params["use_tpu"] says nothing here: export API V1 of TF 1.15 leaves it False on the TPU.
        changes = {} if with_cpu_graph else model.tpu_params
        spec = model.module.model_fn(features, labels, mode, {**dict(params), **changes})
        served = {"serving_default": tf.estimator.export.PredictOutput(spec.predictions)}
        return spec._replace(export_outputs=served)

    def receiver() -> Any:
        fed = model.placeholders(None)
        return tf.estimator.export.ServingInputReceiver(model.host(fed), fed)

    # Lets the saver run beside TPU ops that this machine has no kernel for.
    session_config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    estimator = tf.estimator.tpu.TPUEstimator(
        model_fn=exported,
        params=model.module.params(),
        config=tf.estimator.tpu.RunConfig(
            model_dir=os.path.join(folder, "model_dir"), session_config=session_config
        ),
        use_tpu=True,
        train_batch_size=8,
        predict_batch_size=8,
        export_to_tpu=True,
        export_to_cpu=with_cpu_graph,
        export_saved_model_api_version=EXPORT_APIS[getattr(model.module, "EXPORT_API", "V1")],
    )
    return estimator.export_saved_model(folder, receiver, checkpoint_path=checkpoint).decode()


def _training_loop(model: Model) -> None:
    """Infeed, a loop of 10 steps on each core, gradients summed over the cores, outfeed."""
    rows = model.batch_rows
    on_host = model.host(constants(model.module.make_features(rows, 1)))
    labels = constants(model.module.make_labels(rows, 1))
    flat = tf.nest.flatten([on_host, labels])
    queue = tf.contrib.tpu.InfeedQueue(
        tuple_types=[one.dtype for one in flat], tuple_shapes=[one.shape for one in flat]
    )
    queue.set_number_of_shards(model.replicas)
    on_core = model.on_core(model.replicas)

    def step(loss: Any, *tensors: Any) -> Any:
        fed, wanted = tf.nest.pack_sequence_as([on_host, labels], list(tensors))
        params = model.params(use_tpu=True, batch_rows=rows // model.replicas)
        spec = model.module.model_fn(on_core(fed), wanted, tf.estimator.ModeKeys.TRAIN, params)
        with tf.control_dependencies([spec.train_op]):
            sent = tf.contrib.tpu.outfeed_enqueue_tuple([spec.loss])
        with tf.control_dependencies([sent]):
            return tf.identity(spec.loss)

    def on_each_core() -> Any:
        return tf.contrib.tpu.repeat(10, step, [0.0], infeed_queue=queue)

    with warnings.catch_warnings():  # gradients of lookups are made dense, as on any TPU
        warnings.filterwarnings("ignore", "Converting sparse IndexedSlices")
        tf.tpu.shard(on_each_core, num_shards=model.replicas, outputs_from_all_shards=False)
    queue.split_inputs_and_generate_enqueue_ops(flat)


def _write_yaml(path: str, values: Any) -> str:
    with open(path, "w", encoding="utf-8") as file:
        yaml.safe_dump(values, file)
    return path
