"""An object-based checkpoint (tf.train.Checkpoint, Keras) -> which entry belongs to what.

Its entries are named by paths through Python objects, such as
`model/layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE`; one more entry holds the graph of
those objects, which says the variable's own name and which entries are an optimizer's.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Set

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView
from conversion.tf_internals import TrackableObjectGraph
from conversion.weights.checkpoint import open_checkpoint, require_files
from conversion.weights.variables import saver_keys, variable_name

if TYPE_CHECKING:
    from conversion.source import Source

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "VARIABLE_VALUE"  # the attribute under which a variable saves its value
ROOT = 0  # node of the object that was saved
OPTIMIZER_CHILDREN = {"iter", "learning_rate"}  # what each Keras optimizer of TF 1.15 tracks


def read_object_graph(prefix: str) -> Optional[Any]:
    """The graph of the objects that were saved; None for a checkpoint of tf.train.Saver.

    Raises:
        InputError: the checkpoint cannot be read.
    """
    reader = open_checkpoint(prefix)
    if OBJECT_GRAPH not in reader.get_variable_to_shape_map():
        return None
    require_files(prefix)
    return TrackableObjectGraph.FromString(reader.get_tensor(OBJECT_GRAPH))


def value_key(node: Any) -> Optional[str]:
    """The checkpoint's name for the value of a node; None when it is no variable."""
    return next((one.checkpoint_key for one in node.attributes if one.name == VALUE), None)


def full_names(objects: Any) -> Dict[str, str]:
    """Checkpoint name by variable name, where no two entries claim the same variable name."""
    found = [
        (one.full_name, one.checkpoint_key)
        for node in objects.nodes
        for one in node.attributes
        if one.name == VALUE and one.full_name
    ]
    times = Counter(name for name, _ in found)
    return {name: key for name, key in found if times[name] == 1}


def training_state(objects: Any) -> Dict[str, str]:
    """Why entries are not part of a model, by checkpoint name: what training needs beside it."""
    nodes = objects.nodes
    optimizers = [index for index, node in enumerate(nodes) if _is_optimizer(node)]
    records = _children(objects, "keras_api")
    found: Dict[int, str] = {}
    for without, reason in ((optimizers, "optimizer state"), (records, "Keras metric")):
        rest = reachable(objects, ROOT, without=without)
        found.update(dict.fromkeys(reachable(objects, *without) - rest, reason))
    for node in nodes:
        for slot in node.slot_variables:
            found[slot.slot_variable_node_id] = f"optimizer slot ({slot.slot_name})"
    found.update(dict.fromkeys(_children(objects, "save_counter"), "bookkeeping of the saver"))
    found.update(dict.fromkeys(_children(objects, "global_step"), "training step"))
    keys = {index: value_key(nodes[index]) for index in found}
    reasons = {str(key): found[index] for index, key in keys.items() if key is not None}
    return {OBJECT_GRAPH: "bookkeeping of the saver", **reasons}


def _is_optimizer(node: Any) -> bool:
    names = {one.local_name for one in node.children}
    return bool(node.slot_variables) or names >= OPTIMIZER_CHILDREN


def _children(objects: Any, name: str) -> List[int]:
    """The nodes that some object holds under this name."""
    children = (child for node in objects.nodes for child in node.children)
    return [child.node_id for child in children if child.local_name == name]


def reachable(objects: Any, *starts: int, without: Iterable[int] = ()) -> Set[int]:
    """The nodes that these lead to, themselves included; none of `without`."""
    avoided, found, waiting = set(without), set(), list(starts)
    while waiting:
        index = waiting.pop()
        if index not in found and index not in avoided:
            found.add(index)
            waiting += [child.node_id for child in objects.nodes[index].children]
    return found


def with_object_names(source: Source) -> Source:
    """The source with what its object-based checkpoint says; any other source as it is.

    A variable's entry is what the graph's own restore ops say; else the entry that claims the
    variable's name.
    """
    objects = read_object_graph(source.checkpoint) if source.checkpoint else None
    if objects is None or source.checkpoint is None:
        return source
    keys = full_names(objects)
    if source.meta_graph is not None:
        saved = open_checkpoint(source.checkpoint).get_variable_to_shape_map()
        own = {**saver_keys(source.meta_graph), **restore_function_keys(source.meta_graph)}
        keys.update({name: key for name, key in own.items() if key in saved})
    return replace(source, keys={**keys, **source.keys}, left_out=training_state(objects))


def restore_function_keys(meta_graph: Any) -> Dict[str, str]:
    """Checkpoint name by variable name of a tf.saved_model.save SavedModel.

    Its restore op calls a function whose arguments are the file's name and the variables, and
    which reads each variable with a RestoreV2 of its own.
    """
    view = GraphView(meta_graph.graph_def)
    call = view.nodes.get(meta_graph.saver_def.restore_op_name)
    if call is None or "f" not in call.attr:
        return {}
    body = view.functions[call.attr["f"].func.name]
    handles = dict(zip([one.name for one in body.signature.input_arg], call.input))
    nodes = {node.name: node for node in body.node_def}
    keys: Dict[str, str] = {}
    for node in body.node_def:
        if node.op == "AssignVariableOp":
            handle = view.nodes.get(Edge.parse(handles.get(node.input[0], "")).node)
            key = _restored_key(nodes, node.input[1])
            if key is not None and handle is not None and handle.op == "VarHandleOp":
                keys[variable_name(handle)] = key
    return keys


def _restored_key(nodes: Dict[str, Any], text: str) -> Optional[str]:
    """The checkpoint name that a value inside a function was restored from.

    Inputs there read `argument`, or `node:output:index`.
    """
    index = int(text.rpartition(":")[2]) if ":" in text else 0
    node = nodes.get(_base(text))
    while node is not None and node.op in ("Identity", "Reshape"):
        text = node.input[0]
        index = int(text.rpartition(":")[2]) if ":" in text else 0
        node = nodes.get(_base(text))
    names = nodes.get(_base(node.input[1])) if node is not None and node.op == "RestoreV2" else None
    if names is None or names.op != "Const":
        return None
    return bytes(tf.make_ndarray(names.attr["value"].tensor)[index]).decode()


def _base(text: str) -> str:
    return text.lstrip("^").partition(":")[0]
