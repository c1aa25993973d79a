"""A model_fn or build function, and a checkpoint -> a Source: the model built on one device."""

from __future__ import annotations

import os
from typing import Any, Optional

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.code.code_model import Built, build_model
from conversion.options import ModelCode
from conversion.source import Source, named_checkpoint

SIGNATURE = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY


def model_source(code: ModelCode, path: str, checkpoint: Optional[str] = None) -> Source:
    """Build the model again and put its checkpoint beside it.

    Args:
        path: a checkpoint prefix, a folder with checkpoints (a model_dir), or a .meta, whose
            checkpoint is taken and whose graph is not.
        checkpoint: prefix or folder, in place of what `path` names.

    Raises:
        InputError: no checkpoint, mistakes in the files, or code that cannot be built; see
            `build_model`.
    """
    prefix = named_checkpoint(checkpoint or _variables_of(path))
    built = build_model(code, prefix, use_resource=True)
    kind = "model_fn" if code.model_fn else "build"
    return Source(kind, path, meta_graph_of(built), prefix, None, notes=built.notes)


def _variables_of(path: str) -> str:
    """Of a SavedModel folder, the checkpoint inside."""
    inside = os.path.join(path, "variables")
    return inside if os.path.isfile(os.path.join(path, "saved_model.pb")) else path


def meta_graph_of(built: Built) -> Any:
    """The graph with a signature of its inputs and outputs, and its saver's restore ops.

    Raises:
        InputError: the graph is larger than a protobuf message can be (2 GB of constants).
    """
    info = tf.saved_model.build_tensor_info
    inputs = {name: info(one) for name, one in built.inputs.items()}
    for name, field in built.fields.items():
        inputs[name].tensor_shape.CopyFrom(tf.TensorShape(field.shape).as_proto())
    signature = tf.saved_model.build_signature_def(
        inputs=inputs,
        outputs={name: info(one) for name, one in built.outputs.items()},
        method_name=tf.saved_model.PREDICT_METHOD_NAME,
    )
    with built.graph.as_default():
        variables = tf.global_variables()
        saver = built.saver or (tf.train.Saver(variables) if variables else None)
        if saver is not None and not saver.saver_def:
            saver.build()
        try:
            meta_graph = tf.train.export_meta_graph(
                graph=built.graph,
                saver_def=saver.saver_def if saver else None,
                collection_list=[tf.GraphKeys.ASSET_FILEPATHS],
            )
        except ValueError as error:
            raise InputError(f"the model's graph cannot be written: {error}") from error
    meta_graph.signature_def[SIGNATURE].CopyFrom(signature)
    return meta_graph
