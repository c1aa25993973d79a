"""Where a graph may hold the size of its batch as a constant, and what lies around such places."""

from __future__ import annotations

from typing import Any, Dict, Tuple

from batchinfer.tf1 import tf
from conversion.proof.batch_size import Frame

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
CALLS = ("If", "StatelessIf", "While", "StatelessWhile")
# Ops that take the shape of their result, or how far it reaches, as a tensor: which inputs.
SIZES = {
    "Fill": (0,),
    "BroadcastTo": (1,),
    "Tile": (1,),
    "Slice": (2,),
    "StridedSlice": (2,),
    "Conv2DBackpropInput": (0,),
    "Conv3DBackpropInputV2": (0,),
    "DepthwiseConv2dNativeBackpropInput": (0,),
    "ScatterNd": (2,),
}
# Ops that take the shape of each of their elements, in which -1 is any size.
ELEMENTS = {
    "TensorListReserve": (0,),
    "TensorListStack": (1,),
    "TensorListFromTensor": (1,),
    "TensorListGetItem": (2,),
}
# Ops that take one number, of elements or of steps, as tf.map_fn over a batch makes them.
COUNTS = {
    "Range": (1,),
    "TensorArrayV3": (0,),
    "TensorListReserve": (1,),
    "Enter": (0,),
    "Less": (1,),
}
# Ops that read values, not shapes: a vector in front of them may be one value per row.
VALUES = {"Enter", "Select", "SelectV2", "While", "StatelessWhile", "If", "StatelessIf", "Add",
          "AddV2", "Sub", "Mul", "Maximum", "Minimum", "LogicalAnd", "LogicalOr"}  # fmt: skip
# What shapes and sizes are computed with.
FOLDED = {"Const", "StridedSlice", "Pack", "ConcatV2", "Identity", "Cast", "Add", "AddV2", "Sub",
          "Mul", "FloorDiv", "Minimum", "Maximum", "Prod", "GatherV2", "Reshape", "ExpandDims",
          "Squeeze", "Range"}  # fmt: skip


def computed(tensor: Any) -> Any:
    """What a tensor is that only constants make, as TF 1.15 cannot say of a slice of one.

    None where anything else is behind it.
    """
    waiting, seen = [tensor.op], set()
    while waiting:
        op = waiting.pop()
        if op in seen:
            continue
        if op.type not in FOLDED:
            return None
        seen.add(op)
        waiting += [one.op for one in op.inputs]
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Session(graph=tensor.graph, config=config) as session:
        try:
            return session.run(tensor)
        except (tf.errors.OpError, ValueError):  # it waits for an input, or is inside of a loop
            return None


def frames(graph: Any) -> Dict[str, Tuple[Frame, ...]]:
    """The loops that each node reads in, from the outermost; outside of loops nothing is said."""
    gives: Dict[str, Tuple[Frame, ...]] = {}
    reads: Dict[str, Tuple[Frame, ...]] = {}
    for op in graph.get_operations():  # each after what it reads, but for the way round a loop
        before = [tensor.op.name for tensor in op.inputs] + [one.name for one in op.control_inputs]
        around = max((gives.get(name, ()) for name in before), key=len, default=())
        reads[op.name] = gives[op.name] = around
        if op.type in ("Exit", "RefExit"):
            gives[op.name] = around[:-1]
        elif op.type in ("Enter", "RefEnter"):
            frame = Frame(op.get_attr("frame_name"), op.get_attr("parallel_iterations"))
            gives[op.name] = (*around, frame)
    return {name: around for name, around in reads.items() if around}
