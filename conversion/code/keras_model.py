"""A Keras model and its weights -> a Source: its inference graph, and a checkpoint for it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.code.features import Field, placed, placeholder, read_features
from conversion.code.keras_objects import model_keys
from conversion.code.keras_shim import keras_on_one_device
from conversion.code.keras_weights import WeightsFile, is_h5, matched_values
from conversion.code.params import made, read_params
from conversion.code.user_code import blamed, flags_set, from_factory, importable, load
from conversion.options import ModelCode
from conversion.source import Source, named_checkpoint
from conversion.weights.checkpoint import find_checkpoint
from conversion.weights.object_checkpoint import read_object_graph, with_object_names
from conversion.weights.variable_copy import write_values

NAME = "keras_model"  # of the scope of inputs that a features file declares


@dataclass(frozen=True)
class Built:
    """A model in a graph of its own.

    Attributes:
        graph: holds the model in inference mode.
        model: the Keras model.
        root: what its object-based checkpoint was saved from: the model, or what the user's
            function wrapped around it.
        meta_graph: the graph with a signature_def of the model's inputs and outputs.
    """

    graph: Any
    model: Any
    root: Any
    meta_graph: Any


def keras_source(
    path: str,
    make: Optional[Callable[[], Any]],
    scratch: str,
    features: Optional[str] = None,
) -> Source:
    """A Keras model with its weights, as a source like any other.

    Args:
        path: an .h5 of weights or of a whole model, or an object-based checkpoint.
        make: gives the model; None takes the architecture that is in the .h5.
        features: path of the features file, for a subclassed model that was not called yet.
        scratch: a folder for the checkpoint that is made of an .h5; must outlive the source.

    Raises:
        InputError: no model or no weights there, or a model that cannot be built.
        MappingError: the weights are not the model's.
    """
    if is_h5(path):
        return _from_h5(path, make, scratch, features)
    checkpoint = find_checkpoint(path) or named_checkpoint(path)
    if make is None:
        raise InputError(f"{path} holds no model; name a function that gives it with --keras")
    built = build(make, path, features)
    objects = read_object_graph(checkpoint)
    source = Source("keras", path, built.meta_graph, checkpoint, None)
    if objects is None:  # written by tf.train.Saver: the variables' own names
        return source
    keys, left_out = model_keys(objects, built.root, built.model, path)
    source = with_object_names(source)
    return replace(source, keys=keys, left_out={**left_out, **source.left_out})


def maker_of(code: ModelCode) -> Callable[[], Any]:
    """The call that gives the model: of `--keras`, with the entries of `--params` as arguments.

    Raises:
        InputError: when called, for whatever goes wrong in the user's code.
    """

    def make() -> Any:
        file = read_params(code.params)
        arguments = {**(file.params or {}), **(file.factory or {})}
        with importable():
            load(code.keras, "--keras")  # flags are defined by then
            with flags_set(file.flags, file.where):
                return from_factory(code.keras, "--keras", made(arguments))

    return make


def _from_h5(
    path: str, make: Optional[Callable[[], Any]], scratch: str, features: Optional[str]
) -> Source:
    file = WeightsFile(path)
    with contextlib.closing(file):
        if make is None and file.config is None:
            raise InputError(
                f"{path} holds weights alone; name the function that builds the model with "
                "--keras package.module:function"
            )
        built = build(make or (lambda: _from_config(file)), path, features)
        checkpoint = os.path.join(scratch, "weights", "weights")
        with built.graph.as_default():
            values = matched_values(file, built.model.layers)
            write_values(checkpoint, ((one.op.name, value) for one, value in values))
    return Source("keras", path, built.meta_graph, checkpoint, None)


def _from_config(file: WeightsFile) -> Any:
    """The model that `model.save` described."""
    try:
        return tf.keras.models.model_from_config(file.config)
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise InputError(
            f"{file.path}: its architecture cannot be built: {error}\nA model with layers of its "
            "own needs the function that builds it: --keras package.module:function"
        ) from error


def build(make: Callable[[], Any], what: str, features: Optional[str] = None) -> Built:
    """Call the user's function, and the model once more on inputs of the signature's names.

    The second call is in inference mode whatever learning phase the function left behind.

    Raises:
        InputError: the function fails, or gives no Keras model that was built.
    """
    if not tf.__version__.startswith("1."):
        raise InputError(
            f"{what}: a Keras model of TF 1.15 is built with TensorFlow 1.15; this is "
            f"{tf.__version__}. Convert with 1.15; the bundle then runs on both"
        )
    graph = tf.Graph()
    with graph.as_default(), keras_on_one_device():
        tf.keras.backend.set_learning_phase(0)
        root = make()
        model = _model_of(root, what)
        tf.keras.backend.set_learning_phase(0)
        inputs, packed = _declared(model, features, what) if features else _inputs(model, what)
        outputs = _call(model, packed, what)
    signature = tf.saved_model.build_signature_def(
        inputs={name: tf.saved_model.build_tensor_info(one) for name, one in inputs.items()},
        outputs={name: tf.saved_model.build_tensor_info(one) for name, one in outputs.items()},
        method_name=tf.saved_model.PREDICT_METHOD_NAME,
    )
    meta_graph = tf.train.export_meta_graph(graph=graph, clear_extraneous_savers=True)
    meta_graph.ClearField("collection_def")
    meta_graph.signature_def[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY].CopyFrom(signature)
    return Built(graph, model, root, meta_graph)


def _model_of(root: Any, what: str) -> Any:
    """The model itself, or the only one that a tf.train.Checkpoint holds."""
    if isinstance(root, tf.keras.Model):
        return root
    held = [one.ref for one in getattr(root, "_checkpoint_dependencies", ())]
    models = [one for one in held if isinstance(one, tf.keras.Model)]
    if len(models) != 1:
        raise InputError(
            f"{what}: expected --keras to name a function that returns a tf.keras.Model, or a "
            f"tf.train.Checkpoint that holds one; it returned {type(root).__name__}"
        )
    return models[0]


def _declared(model: Any, features: str, what: str) -> Tuple[Dict[str, Any], Any]:
    """What a features file declares: placeholders by name, and in the structure to call with."""
    if getattr(model, "inputs", None):
        raise InputError(
            f"{what}: the model has inputs of its own, {', '.join(model.input_names)}; expected no "
            "--features"
        )
    made: Dict[str, Any] = {}

    def make(field: Field) -> Any:
        made[field.name] = placeholder(field)
        return made[field.name]

    packed = placed(read_features(features).features, make)
    return made, packed


def _inputs(model: Any, what: str) -> Tuple[Dict[str, Any], Any]:
    """A placeholder for each input of the model, by its name, and what to call it with."""
    if not getattr(model, "inputs", None):
        raise InputError(
            f"{what}: the model has no inputs yet, so their shapes are not known; expected it to "
            "be built: a tf.keras.Input, an input_shape of the first layer, or a subclassed model "
            "that the function calls on a tf.keras.Input; or name a file with --features"
        )
    named = model.inputs if isinstance(model.inputs, dict) else None
    names = sorted(named) if named else model.input_names
    tensors = [named[name] for name in names] if named else model.inputs
    with tf.name_scope(NAME):
        made = {
            name: _placeholder(tensor, name, layer, what)
            for name, tensor, layer in zip(names, tensors, _input_layers(model))
        }
    if named:
        return made, dict(made)
    return made, list(made.values()) if len(made) > 1 else next(iter(made.values()))


def _input_layers(model: Any) -> List[Any]:
    """The Input layer of each input; None for a subclassed model, which has none."""
    return getattr(model, "_input_layers", None) or [None] * len(model.inputs)


def _placeholder(tensor: Any, name: str, layer: Any, what: str) -> Any:
    if isinstance(tensor, tf.SparseTensor):
        return _sparse_placeholder(tensor.dtype, getattr(layer, "_batch_input_shape", None), name)
    if not isinstance(tensor, tf.Tensor):
        raise InputError(
            f"{what}: input {name} is a {type(tensor).__name__}; expected a dense or sparse tensor"
        )
    return tf.placeholder(tensor.dtype, tensor.shape, name)


def _sparse_placeholder(dtype: Any, shape: Any, name: str) -> Any:
    """With the width that the Input layer says, which a tf.sparse_placeholder forgets."""
    if shape is None or len(shape) != 2 or shape[1] is None:
        return tf.sparse_placeholder(dtype, name=name)
    num_rows = tf.placeholder(tf.int64, [], name=name + "/num_rows")
    return tf.SparseTensor(
        tf.placeholder(tf.int64, [None, 2], name=name + "/indices"),
        tf.placeholder(dtype, [None], name=name + "/values"),
        tf.stack([num_rows, shape[1]], name=name + "/shape"),
    )


def _call(model: Any, packed: Any, what: str) -> Dict[str, Any]:
    """Outputs by name, in inference mode."""
    arguments = {"training": False} if model._expects_training_arg else {}
    with blamed(f"{what}: the model cannot be called"):
        result = model(packed, **arguments)
    if isinstance(result, dict):
        return dict(sorted(result.items()))
    found = tf.nest.flatten(result)
    names = getattr(model, "output_names", None) or [f"output_{i + 1}" for i in range(len(found))]
    if len(names) != len(found):
        raise InputError(f"{what}: the model names {len(names)} outputs and gives {len(found)}")
    return dict(zip(names, found))
