"""A graph -> how large the whole numbers of its inputs may be, from the tables they look up."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Optional, Tuple

from batchinfer.signature import Signature
from batchinfer.tf1 import tf
from conversion.graphs.tensors import imported

# Ops that hand on the values they get, and those that look something up with them.
HAND_ON = ("Identity", "Reshape", "ExpandDims", "Squeeze", "Cast", "Transpose", "Pack", "ConcatV2",
           "Slice", "StridedSlice", "Tile", "StopGradient", "Snapshot", "Split", "Unpack",
           "GatherNd", "Minimum", "Maximum")  # fmt: skip
LOOKUPS = {"GatherV2": (0, 1), "Gather": (0, 1), "ResourceGather": (0, 1)}  # table, numbers


def integer_bounds(graph_def: Any, signature: Signature) -> Dict[str, int]:
    """By input, the number of entries of the smallest table that it looks up or is spread over."""
    graph = imported(graph_def, "the converted graph")
    found: Dict[str, int] = {}
    for spec in signature.inputs:
        if tf.as_dtype(spec.dtype).is_integer:
            sizes = list(_sizes(graph.get_tensor_by_name(spec.tensor)))
            if sizes:
                found[spec.name] = min(sizes)
    return found


def _sizes(tensor: Any) -> Iterator[int]:
    """Sizes of everything that is indexed with a tensor, or with what is made of it."""
    waiting, seen = [tensor], set()
    while waiting:
        one = waiting.pop()
        if one.name in seen:
            continue
        seen.add(one.name)
        for op in one.consumers():
            if op.type in HAND_ON:
                waiting += op.outputs
            size = _size(op, one)
            if size:
                yield size


def _size(op: Any, numbers: Any) -> Optional[int]:
    if op.type == "OneHot" and op.inputs[0] is numbers:
        depth = tf.get_static_value(op.inputs[1])
        return None if depth is None else int(depth)
    if op.type in LOOKUPS and op.inputs[1] is numbers:
        return _first_dim(op.inputs[0])
    return None


def _first_dim(table: Any) -> Optional[int]:
    """Rows of a table that is a tensor or a variable."""
    if table.dtype == tf.resource:
        source = table.op
        while source.type in ("Identity", "Enter"):
            source = source.inputs[0].op
        dims = source.node_def.attr["shape"].shape.dim
        return int(dims[0].size) if dims and dims[0].size > 0 else None
    shape: Tuple[Any, ...] = tuple(table.shape.as_list()) if table.shape.ndims else ()
    sizes: List[Any] = list(shape[:1])
    return int(sizes[0]) if sizes and sizes[0] else None
