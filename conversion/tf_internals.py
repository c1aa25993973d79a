"""What conversion needs of TensorFlow beyond its public API, in one place."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
from tensorflow.core.framework import variable_pb2
from tensorflow.core.protobuf import (
    meta_graph_pb2,
    saved_model_pb2,
    trackable_object_graph_pb2,
)
from tensorflow.python.framework import kernels, op_def_registry
from tensorflow.python.grappler import item

from batchinfer.tf1 import tf

AssetFileDef = meta_graph_pb2.AssetFileDef
SavedModel = saved_model_pb2.SavedModel
TrackableObjectGraph = trackable_object_graph_pb2.TrackableObjectGraph
VariableDef = variable_pb2.VariableDef

# Device types whose kernels a Session on a GPU or CPU machine runs; XLA's are left out,
# because the placer would put a float op there silently and compile it for seconds.
KERNEL_DEVICES = ("CPU", "GPU", "DEFAULT")


def op_def(name: str) -> Optional[Any]:
    """The OpDef that this TensorFlow has for an op; None when it knows no such op."""
    if hasattr(op_def_registry, "get"):  # 2.x
        return op_def_registry.get(name)
    return op_def_registry.get_registered_ops().get(name)


def kernel_defs(name: str) -> Tuple[Any, ...]:
    """The CPU and GPU kernels that this TensorFlow has registered for an op."""
    found = kernels.get_registered_kernels_for_op(name).kernel
    return tuple(kernel for kernel in found if kernel.device_type in KERNEL_DEVICES)


def attr_value(node: Any, name: str, definition: Optional[Any] = None) -> Any:
    """The node's attribute, or the default that the OpDef gives where it was stripped."""
    if name in node.attr:
        return node.attr[name]
    definition = definition or op_def(node.op)
    for attr in definition.attr if definition else ():
        if attr.name == name:
            return attr.default_value
    return tf.AttrValue()


def converted_layer_weights(layer: Any, values: List[Any], version: str, backend: str) -> List[Any]:
    """Values as this Keras orders and shapes them, from those of an older one or of cuDNN."""
    from tensorflow.python.keras.saving import hdf5_format

    return list(hdf5_format.preprocess_weights_for_loading(layer, values, version, backend))


def op_properties(graph_def: Any, wanted: Sequence[str]) -> Dict[str, Any]:
    """What Grappler infers of each node's outputs (dtype, shape), by node name.

    Args:
        wanted: nodes that the graph is run for; Grappler asks for at least one.
    """
    meta_graph = tf.MetaGraphDef(graph_def=graph_def)
    meta_graph.collection_def["train_op"].node_list.value.extend(wanted)
    return dict(item.Item(meta_graph).GetOpProperties())


def xla_message(kind: str, packed: bytes) -> Optional[Any]:
    """A message of XLA's, such as DotDimensionNumbers; None where TensorFlow does not have it."""
    try:
        from tensorflow.compiler.xla import xla_data_pb2
    except ImportError:  # TF 2.x keeps it elsewhere
        return None
    return getattr(xla_data_pb2, kind).FromString(packed)


def without_bfloat16(array: Any) -> Any:
    """The same values in float32, where a session gave bfloat16, which NumPy does not know."""
    return array.astype(np.float32) if array.dtype == tf.bfloat16.as_numpy_dtype else array
