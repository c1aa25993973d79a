"""A Keras model against the objects of a checkpoint: which entry each variable has.

As TensorFlow restores: from one object to the next along the names of the attributes that hold
them. No variable's name is asked.
"""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from batchinfer.errors import InputError, MappingError
from conversion.weights.object_checkpoint import ROOT, reachable, value_key


def model_keys(
    objects: Any, root: Any, model: Any, path: str
) -> Tuple[Dict[str, str], Dict[str, str]]:
    """Checkpoint name by variable name, and why other entries are left out.

    Args:
        objects: the graph of the objects in the checkpoint.
        root: the object that the checkpoint was saved from, if it is not the model; a model is
            looked for anywhere in the checkpoint.

    Raises:
        MappingError: objects that do not fit together.
        InputError: several objects of the checkpoint are such a model.
    """
    starts = range(len(objects.nodes)) if root is model else [ROOT]
    best = _best(objects, starts, root, model, path)
    bound = _walk(objects, best, root)
    keys = {}
    for variable in model.weights:
        key = value_key(objects.nodes[bound[id(variable)]]) if id(variable) in bound else None
        if key is not None:
            keys[variable.op.name] = key
    inside = reachable(objects, bound.get(id(model), best))
    left_out = {}
    for index, node in enumerate(objects.nodes):
        key = value_key(node)
        if key is not None and index not in inside:
            left_out[key] = "belongs to another object of the checkpoint than the model"
    return keys, left_out


def _best(objects: Any, starts: Any, root: Any, model: Any, path: str) -> int:
    """The node that is the model: where all its variables are found, else most of them."""
    variables = {id(one) for one in model.weights}
    scores = {start: len(variables & set(_walk(objects, start, root))) for start in starts}
    most = max(scores.values(), default=0)
    found = [start for start, score in scores.items() if score == most]
    if len(found) > 1 and most:
        paths = "\n  ".join(_path(objects, one) for one in found)
        raise InputError(
            f"{path}: {len(found)} objects of the checkpoint have the variables of this model:\n"
            f"  {paths}\nLet the function of --keras return, as the training did, a "
            "tf.train.Checkpoint with the model under the one name that is meant."
        )
    return found[0] if most else ROOT


def _walk(objects: Any, start: int, root: Any) -> Dict[int, int]:
    """The node of each Python object (by its id) that `root` at node `start` leads to.

    Raises:
        MappingError: one object of the checkpoint is two here, or the other way round.
    """
    bound: Dict[int, Any] = {}
    nodes: Dict[int, int] = {}
    waiting: List[Tuple[int, Any]] = [(start, root)]
    while waiting:
        index, found = waiting.pop()
        if index in bound:
            if bound[index] is not found and hasattr(found, "shape"):
                raise MappingError(
                    f"{_path(objects, index)} of the checkpoint is one variable, in the model two: "
                    f"{bound[index].name} and {found.name}"
                )
            continue
        bound[index] = found
        nodes[id(found)] = index
        for child in objects.nodes[index].children:
            other = found._lookup_dependency(child.local_name)
            if other is not None:
                waiting.append((child.node_id, other))
    return nodes


def _path(objects: Any, wanted: int) -> str:
    """The shortest names that lead from the root to a node."""
    paths, waiting = {ROOT: "(the root)"}, [ROOT]
    while waiting and wanted not in paths:
        index = waiting.pop(0)
        for child in objects.nodes[index].children:
            if child.node_id not in paths:
                before = "" if index == ROOT else paths[index] + "/"
                paths[child.node_id] = before + child.local_name
                waiting.append(child.node_id)
    return paths.get(wanted, f"node {wanted}")
