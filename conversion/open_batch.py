"""A graph with a fixed batch -> the same graph with an open one, for the probe to judge.

Nothing here knows that the result is right: a constant that equals the batch size may be the
batch size or may not. Each attempt opens more, and only what the probe has found to give the
same rows in batches of every size is kept.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from batchinfer.signature import Signature
from batchinfer.tf1 import tf
from conversion.batch_size import SCOPE, BatchSize
from conversion.graph import Edge, copied
from conversion.tensors import imported

PLACEHOLDERS = ("Placeholder", "PlaceholderV2", "PlaceholderWithDefault")
CALLS = ("If", "StatelessIf", "While", "StatelessWhile")
# Ops that take the shape of their result, or how far it reaches, as a tensor: which input.
SHAPED = {
    "Fill": 0,
    "BroadcastTo": 1,
    "Tile": 1,
    "Slice": 2,
    "StridedSlice": 2,
    "Conv2DBackpropInput": 0,
    "Conv3DBackpropInputV2": 0,
    "DepthwiseConv2dNativeBackpropInput": 0,
    "ScatterNd": 2,
    "Range": 1,
}
Choose = Callable[[Sequence[int], int], Optional[int]]


def attempts(graph_def: Any, signature: Signature) -> Iterator[Tuple[str, Any]]:
    """What was opened, and the graph with it opened, from the least to the most.

    Args:
        signature: of the graph; its batch is fixed.
    """
    rows = signature.fixed_batch_rows or 1
    for what, choose, everything in (
        ("inputs", None, False),
        ("inputs and reshapes", leading, False),
        ("inputs and reshapes of any dimension", exact, False),
        ("inputs, reshapes, sizes and constants", leading, True),
        ("inputs, reshapes of any dimension, sizes and constants", exact, True),
    ):
        attempt = _Attempt(graph_def, signature, rows)
        attempt.open_inputs()
        opened = attempt.open_reshapes(choose) if choose else 1
        if everything:
            opened = attempt.open_sizes() + attempt.open_constants()
        if opened:
            yield what, attempt.graph_def


def leading(dims: Sequence[int], rows: int) -> Optional[int]:
    """The first dimension where it is a multiple of the batch, else what `exact` says."""
    if dims and dims[0] > 0 and dims[0] % rows == 0:
        return 0
    return exact(dims, rows)


def exact(dims: Sequence[int], rows: int) -> Optional[int]:
    """The first dimension that equals the batch, else the first that is a multiple of it."""
    fits = [place for place, size in enumerate(dims) if size == rows]
    fits += [place for place, size in enumerate(dims) if size > 0 and size % rows == 0]
    return fits[0] if fits else None


class _Attempt:
    """A copy of a graph whose batch is opened place by place."""

    def __init__(self, graph_def: Any, signature: Signature, rows: int) -> None:
        self.graph_def = copied(graph_def)
        self._rows = rows
        self._inputs = [Edge.parse(name) for spec in signature.inputs for name in spec.fed]
        self._graph = imported(graph_def, "the converted graph")  # as it was: shapes are known
        first = signature.inputs[0]
        dtype = tf.as_dtype(first.dtype)
        self._size = BatchSize(self.graph_def, self._inputs[0], dtype)
        self._dependent = self._depends_on_inputs()

    def open_inputs(self) -> None:
        """The first dimension of the inputs, and of what loops and branches declare."""
        names = {edge.node for edge in self._inputs}
        for node in self.graph_def.node:
            shapes: List[Any] = []
            if node.name in names and node.op in PLACEHOLDERS:
                shapes = [node.attr["shape"].shape]
            elif node.op in CALLS:
                shapes = list(node.attr["output_shapes"].list.shape)
            for shape in shapes:
                if shape.dim and shape.dim[0].size == self._rows:
                    shape.dim[0].size = -1

    def open_reshapes(self, choose: Choose) -> int:
        """Let each Reshape work out the dimension that holds the batch; how many of them."""
        count = 0
        for node in self._nodes("Reshape"):
            shape = self._baked(node, 1)
            if node.name not in self._dependent or shape is None or shape.ndim != 1:
                continue
            dims = self._whole_shape(node, shape)
            place = choose(dims, self._rows) if dims else None
            if place is not None and shape[place] != -1:
                dims[place] = -1
                node.input[1] = self._size.const(np.array(dims, shape.dtype))
                count += 1
        return count

    def open_sizes(self) -> int:
        """Put the rows of the moment where a constant size begins with the batch; how many."""
        count = 0
        for node in self._nodes(*SHAPED):
            index = SHAPED[node.op]
            size = self._baked(node, index)
            if size is None or not size.size or size.ndim > 1:
                continue
            first = int(size.reshape(-1)[0])
            cuts = node.op in ("Slice", "StridedSlice")
            if first > 0 and first % self._rows == 0 and (node.name in self._dependent or not cuts):
                node.input[index] = self._size.sized(size, first // self._rows)
                count += 1
        return count

    def open_constants(self) -> int:
        """Repeat the row of a constant whose rows are all alike, such as a zero state."""
        tiled: Dict[Edge, str] = {}
        for node in self._nodes("Const"):
            shape = node.attr["value"].tensor.tensor_shape.dim
            if len(shape) < 2 or shape[0].size != self._rows:
                continue
            value = tf.make_ndarray(node.attr["value"].tensor)
            if bool((value == value[:1]).all()):
                tiled[Edge(node.name, 0)] = self._size.repeated(value[:1])
        for node in self.graph_def.node:
            if not node.name.startswith(SCOPE):
                node.input[:] = [tiled.get(Edge.parse(text), text) for text in node.input]
        return len(tiled)

    def _nodes(self, *ops: str) -> List[Any]:
        return [
            node
            for node in self.graph_def.node
            if node.op in ops and not node.name.startswith(SCOPE)
        ]

    def _depends_on_inputs(self) -> Set[str]:
        """Names of the nodes that read an input, directly or through others."""
        readers: Dict[str, List[str]] = {}
        for node in self.graph_def.node:
            for text in node.input:
                readers.setdefault(Edge.parse(text).node, []).append(node.name)
        found: Set[str] = set()
        waiting = [edge.node for edge in self._inputs]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += readers.get(name, [])
        return found

    def _baked(self, node: Any, index: int) -> Any:
        """The constant that an input is; None when it is computed from the model's inputs."""
        edge = Edge.parse(node.input[index])
        if edge.node in self._dependent or edge.node.startswith(SCOPE):
            return None
        return tf.get_static_value(self._graph.get_tensor_by_name(f"{edge.node}:{edge.index}"))

    def _whole_shape(self, node: Any, shape: Any) -> List[int]:
        """The result's dimensions in the graph as it was; [] when one is not known."""
        result = self._graph.get_operation_by_name(node.name).outputs[0].shape
        if result.is_fully_defined():
            return [int(size) for size in result.as_list()]
        return [] if -1 in shape else [int(size) for size in shape]
