"""A clean graph -> saved_model.pb, the same bytes for the same graph."""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from batchinfer.signature import Signature, TensorSpec
from batchinfer.tf1 import tf
from conversion.graphs.tables import Asset
from conversion.tf_internals import AssetFileDef, SavedModel, VariableDef
from conversion.weights.variables import variable_name

SCHEMA_VERSION = 1  # saved_model_schema_version of tensorflow/python/saved_model/constants.py
MAIN_OP = "saved_model_main_op"  # the collection in which loaders of 1.x and 2.x look for it


def write_saved_model(
    folder: str,
    graph: Any,
    signature: Signature,
    initialisers: Sequence[str],
    assets: Iterable[Asset],
) -> None:
    """Write `saved_model.pb` (tag `serve`, signature `serving_default`) and `assets/`.

    Args:
        graph: a tf.Graph of its own; saver and init ops are added to it.
        initialisers: names of the ops that fill lookup tables.
    """
    with graph.as_default():
        saver_def, variables = _add_saver(graph)
        if initialisers:
            init = tf.group(*[graph.get_operation_by_name(n) for n in initialisers], name="init")
            tf.add_to_collection(MAIN_OP, init)
    meta_graph = tf.train.export_meta_graph(
        graph=graph, saver_def=saver_def, strip_default_attrs=True
    )
    if variables:
        listed = meta_graph.collection_def[tf.GraphKeys.GLOBAL_VARIABLES]
        listed.bytes_list.value.extend(variables)
    meta_graph.meta_info_def.tags.append(tf.saved_model.SERVING)
    meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY].CopyFrom(
        tf.saved_model.build_signature_def(
            inputs={**_infos(graph, signature.inputs), **_lengths(graph, signature)},
            outputs=_infos(graph, signature.outputs),
            method_name=tf.saved_model.PREDICT_METHOD_NAME,
        )
    )
    for asset in assets:
        _add_asset(folder, meta_graph, asset)
    _settle(meta_graph)
    model = SavedModel(saved_model_schema_version=SCHEMA_VERSION, meta_graphs=[meta_graph])
    with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
        file.write(model.SerializeToString(deterministic=True))


def _add_saver(graph: Any) -> Tuple[Any, List[bytes]]:
    """Save and restore ops for every variable; None when the graph has no variables.

    Written with raw ops, because a tf.train.Saver needs Python variables, which an imported
    graph has not.
    """
    handles = _handles(graph)
    if not handles:
        return None, []
    names = [name for name, _ in handles]
    with tf.name_scope("save"):
        handles = tuple((name, _handle_to_restore(name, op)) for name, op in handles)
        prefix = tf.placeholder_with_default("model", shape=(), name="Const")
        reads = [
            tf.raw_ops.ReadVariableOp(resource=op.outputs[0], dtype=_dtype(op)) for _, op in handles
        ]
        slices = [""] * len(names)
        save = tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=names, shape_and_slices=slices, tensors=reads
        )
        with tf.control_dependencies([save]):
            saved = tf.identity(prefix, name="control_dependency")
        restored = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=names,
            shape_and_slices=slices,
            dtypes=[_dtype(op) for _, op in handles],
        )
        assigns = [
            tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=value)
            for (_, op), value in zip(handles, restored)
        ]
        restore = tf.group(*assigns, name="restore_all")
    saver_def = tf.train.SaverDef(
        filename_tensor_name=prefix.name,
        save_tensor_name=saved.name,
        restore_op_name=restore.name,
        version=tf.train.SaverDef.V2,
    )
    return saver_def, [
        _variable_def(op, read, assign) for (_, op), read, assign in zip(handles, reads, assigns)
    ]


def _handles(graph: Any) -> Tuple[Tuple[str, Any], ...]:
    """One handle op for each variable, by name."""
    found: Dict[str, Any] = {}
    for op in graph.get_operations():
        if op.type == "VarHandleOp":
            name = variable_name(op.node_def)
            if name not in found or not op.control_inputs:
                found[name] = op
    return tuple(sorted(found.items()))


def _handle_to_restore(name: str, op: Any) -> Any:
    """The op itself, or one of its own where it is inside a branch or loop."""
    if not op.control_inputs:
        return op
    made = tf.raw_ops.VarHandleOp(
        dtype=_dtype(op), shape=op.get_attr("shape"), shared_name=name, name="handle"
    )
    return made.op


def _dtype(handle: Any) -> Any:
    return handle.get_attr("dtype")


def _variable_def(handle: Any, read: Any, assign: Any) -> bytes:
    """A variable as the collection behind tf.global_variables() holds it."""
    definition = VariableDef(
        variable_name=handle.outputs[0].name,
        initializer_name=assign.name,
        snapshot_name=read.name,
        is_resource=True,
        trainable=False,
    )
    return bytes(definition.SerializeToString(deterministic=True))


def _infos(graph: Any, specs: Iterable[TensorSpec]) -> Any:
    return {
        spec.name: tf.saved_model.build_tensor_info(graph.get_tensor_by_name(spec.tensor))
        for spec in specs
    }


def _lengths(graph: Any, signature: Signature) -> Any:
    """`ids/lengths` beside `ids`, for other loaders of the SavedModel."""
    return {
        f"{spec.name}/lengths": tf.saved_model.build_tensor_info(
            graph.get_tensor_by_name(spec.lengths)
        )
        for spec in signature.inputs
        if spec.lengths is not None
    }


def _add_asset(folder: str, meta_graph: Any, asset: Asset) -> None:
    target = os.path.join(folder, tf.saved_model.ASSETS_DIRECTORY)
    os.makedirs(target, exist_ok=True)
    shutil.copyfile(asset.path, os.path.join(target, asset.filename))
    entry = AssetFileDef(filename=asset.filename)
    entry.tensor_info.name = asset.tensor
    meta_graph.asset_file_def.append(entry)


def _settle(meta_graph: Any) -> None:
    """Bring what TensorFlow keeps in hash maps into one order, and drop what it can infer."""
    graph_def = meta_graph.graph_def
    functions = sorted(graph_def.library.function, key=lambda one: one.signature.name)
    functions = [type(one).FromString(one.SerializeToString()) for one in functions]
    del graph_def.library.function[:]
    graph_def.library.function.extend(functions)
    for node in graph_def.node:
        if "_output_shapes" in node.attr:
            del node.attr["_output_shapes"]
