"""A Keras .h5 file -> its weights, layer by layer, matched with a model as Keras matches them."""

from __future__ import annotations

import json
import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError, MappingError
from batchinfer.tf1 import tf
from conversion.tf_internals import converted_layer_weights

BFLOAT16 = tf.bfloat16.as_numpy_dtype
MAGIC = b"\x89HDF\r\n\x1a\n"  # the first bytes of every HDF5 file
_NUMBER = re.compile(r"(_v[12])?(_\d+)?$")  # what Keras appends to names to make them unique


def is_h5(path: str) -> bool:
    """Whether a file is HDF5, whatever its name."""
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class WeightsFile:
    """An opened .h5 of `save_weights` or `model.save`; close it after use.

    Attributes:
        path: the file.
        config: what `model.save` wrote about the architecture; None in a file of weights alone.
    """

    def __init__(self, path: str) -> None:
        """Open and look.

        Raises:
            InputError: h5py is not there, or the file is not one that Keras wrote.
        """
        self.path = path
        try:
            import h5py

            self._file = h5py.File(path, "r")
        except (ImportError, OSError) as error:
            raise InputError(
                f"cannot read {path}: expected an HDF5 file of Keras: {error}"
            ) from error
        found = self._file.attrs.get("model_config")
        self.config: Optional[Dict[str, Any]] = None if found is None else json.loads(_text(found))
        self._weights = self._file.get("model_weights", self._file)
        if "layer_names" not in self._weights.attrs and "layer_names0" not in self._weights.attrs:
            self.close()
            raise InputError(
                f"{path} is an HDF5 file without Keras' layer_names; expected one that "
                "model.save_weights or model.save wrote"
            )

    def close(self) -> None:
        self._file.close()

    def layers(self) -> List[Tuple[str, List[str]]]:
        """Name and names of weights of each layer that has any, in the file's order."""
        names = _names(self._weights, "layer_names")
        found = [(name, _names(self._weights[name], "weight_names")) for name in names]
        return [(name, weights) for name, weights in found if weights]

    def values(self, layer: str, weights: List[str]) -> List[Any]:
        """The arrays; bfloat16, which HDF5 keeps as two opaque bytes, becomes float32."""
        arrays = [np.asarray(self._weights[layer][name]) for name in weights]
        return [
            array.view(BFLOAT16).astype(np.float32) if array.dtype == np.dtype("V2") else array
            for array in arrays
        ]

    def shapes(self, layer: str, weights: List[str]) -> List[Tuple[int, ...]]:
        return [tuple(self._weights[layer][name].shape) for name in weights]

    def attribute(self, name: str, default: str) -> str:
        found = self._weights.attrs.get(name)
        return default if found is None else _text(found)


def _text(value: Any) -> str:
    """h5py 2 gives bytes, h5py 3 gives str."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _names(group: Any, name: str) -> List[str]:
    """A list of names; Keras splits one that is larger than a header into `name0`, `name1`..."""
    if name in group.attrs:
        return [_text(one) for one in group.attrs[name]]
    found: List[str] = []
    while f"{name}{len(found)}" in group.attrs:
        found.append(f"{name}{len(found)}")
    return [_text(one) for chunk in found for one in group.attrs[chunk]]


def matched_values(file: WeightsFile, layers: Any) -> Iterator[Tuple[Any, Any]]:
    """Each variable of a model with its value, one layer in memory at a time.

    Keras goes by position; here names and shapes have to agree as well, but for the numbers that
    Keras appends. Everything is checked before the first value is given.

    Args:
        layers: the model's layers, as `model.layers` has them.

    Raises:
        MappingError: the file is another model's; every difference is listed.
    """
    pairs = _matched_layers(file, layers)
    for (name, weights), layer, variables in pairs:
        yield from zip(variables, _values(file, name, weights, layer, variables))


def _values(
    file: WeightsFile, name: str, weights: List[str], layer: Any, variables: List[Any]
) -> List[Any]:
    """As they are; as Keras converts them where they are Keras 1's, Theano's or cuDNN's."""
    version = file.attribute("keras_version", "1")
    backend = file.attribute("backend", "tensorflow")
    values = file.values(name, weights)
    same = file.shapes(name, weights) == _shapes(variables)
    if version[:1] != "1" and backend == "tensorflow" and (same or _is_convolution(layer)):
        return values  # a kernel of another shape is another layer's; Keras would transpose it
    return converted_layer_weights(layer, values, version, backend)


def _matched_layers(file: WeightsFile, layers: Any) -> List[Tuple[Any, Any, List[Any]]]:
    """(name, weight names in the order of the variables), layer, variables; per layer."""
    saved = file.layers()
    found = [(layer, layer.trainable_weights + layer.non_trainable_weights) for layer in layers]
    found = [(layer, variables) for layer, variables in found if variables]
    problems: List[str] = []
    if len(saved) != len(found):
        problems.append(f"{len(saved)} layers with weights in the file, {len(found)} in the model")
        problems += [f"+ {name}" for name, _ in saved] + [f"- {layer.name}" for layer, _ in found]
    elif _swapped([name for name, _ in saved], [layer.name for layer, _ in found]):
        problems.append("the same layers in another order; Keras would take them by position")
        problems += [f"+ {name}  - {layer.name}" for (name, _), (layer, _) in zip(saved, found)]
    pairs = []
    for (name, weights), (layer, variables) in zip(saved, [] if problems else found):
        if _bare(name) != _bare(layer.name):
            problems.append(f"+ layer {name}  - layer {layer.name}")
        ordered = _ordered(weights, [variable.name for variable in variables])
        if ordered is None:
            problems.append(f"+ {name}: {', '.join(weights)}")
            problems.append(f"- {layer.name}: {', '.join(one.name for one in variables)}")
        else:
            problems += _shape_problems(file, name, ordered, layer, variables)
            pairs.append(((name, ordered), layer, variables))
    if problems:
        raise MappingError(
            f"the weights of {file.path} (+) are not those of the model (-):\n  "
            + "\n  ".join(problems)
            + "\nExpected the layers under the names and in the order of the model that was saved."
        )
    return pairs


def _shape_problems(
    file: WeightsFile, name: str, weights: List[str], layer: Any, variables: List[Any]
) -> List[str]:
    """Shapes that differ after what Keras converts, such as the biases of a CuDNNLSTM."""
    wanted = _shapes(variables)
    if file.shapes(name, weights) == wanted:
        return []
    try:
        converted = [np.shape(one) for one in _values(file, name, weights, layer, variables)]
    except (ValueError, IndexError) as error:
        return [f"{name}: {error}"]
    if len(converted) != len(wanted):
        return [f"+ {name}: {len(converted)} weights  - {layer.name}: {len(wanted)} weights"]
    return [
        f"+ {weight} {list(found)}  - {variable.name} {list(want)}"
        for weight, found, variable, want in zip(weights, converted, variables, wanted)
        if found != want
    ]


def _shapes(variables: List[Any]) -> List[Tuple[int, ...]]:
    return [tuple(one.shape.as_list()) for one in variables]


def _is_convolution(layer: Any) -> bool:
    return "Conv" in type(layer).__name__


def _ordered(saved: List[str], wanted: List[str]) -> Optional[List[str]]:
    """The saved names in the order of the variables; None when they are other weights.

    By their whole names where those are the same; else by position, each with the same last part.
    """
    if sorted(saved) == sorted(wanted):
        return wanted
    if [_bare(_last(one)) for one in saved] == [_bare(_last(one)) for one in wanted]:
        return saved
    return None


def _swapped(saved: List[str], wanted: List[str]) -> bool:
    return saved != wanted and sorted(saved) == sorted(wanted)


def _last(name: str) -> str:
    return name.partition(":")[0].rpartition("/")[2]


def _bare(name: str) -> str:
    return _NUMBER.sub("", name)
