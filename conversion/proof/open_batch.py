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
from conversion.graphs.graph import CONTROL, Edge, copied
from conversion.graphs.tensors import imported
from conversion.proof.baked_sizes import (
    CALLS,
    COUNTS,
    ELEMENTS,
    PLACEHOLDERS,
    SIZES,
    VALUES,
    computed,
    frames,
)
from conversion.proof.batch_size import SCOPE, BatchSize

Choose = Callable[[Sequence[int], int], Optional[int]]


def attempts(graph_def: Any, signature: Signature) -> Iterator[Tuple[str, Any]]:
    """What was opened, and the graph with it opened, from the least to the most.

    Args:
        signature: of the graph; its batch is fixed.
    """
    rows = signature.fixed_batch_rows or 1
    tried: Set[bytes] = set()
    for what, choose, sizes, counts in (
        ("inputs", None, False, False),
        ("inputs and reshapes", leading, False, False),
        ("inputs and reshapes of any dimension", exact, False, False),
        ("inputs, reshapes, sizes and constants", leading, True, False),
        ("inputs, reshapes of any dimension, sizes and constants", exact, True, False),
        ("inputs, reshapes, sizes, constants and counts", leading, True, True),
        ("inputs, reshapes of any dimension, sizes, constants and counts", exact, True, True),
    ):
        attempt = _Attempt(graph_def, signature, rows)
        attempt.open_inputs()
        opened = attempt.open_reshapes(choose) if choose else 1
        if sizes:
            opened = attempt.open_sizes(choose or leading) + attempt.open_constants()
        if counts:
            opened = attempt.open_counts()
        made = attempt.graph_def.SerializeToString(deterministic=True)
        if opened and made not in tried:
            tried.add(made)
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
        self._frames = frames(self._graph)

    def open_inputs(self) -> None:
        """The first dimension of the inputs, and of what loops and tensor arrays declare."""
        names = {edge.node for edge in self._inputs}
        for node in self.graph_def.node:
            shapes: List[Any] = []
            if node.name in names and node.op in PLACEHOLDERS:
                shapes = [node.attr["shape"].shape]
            elif node.op in CALLS:
                shapes = list(node.attr["output_shapes"].list.shape)
            elif node.op.startswith("TensorArray") and "element_shape" in node.attr:
                shapes = [node.attr["element_shape"].shape]
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
                made = self._size.const(np.array(dims, shape.dtype))
                self._replace(node, 1, made, shape.dtype)
                count += 1
        return count

    def open_sizes(self, choose: Choose) -> int:
        """Put the rows of the moment where a constant size holds the batch; how many."""
        count = 0
        for node, index, size in self._constants(SIZES, most_dims=1):
            place = choose([int(number) for number in size.reshape(-1)], self._rows)
            cuts = node.op in ("Slice", "StridedSlice")
            if place is not None and (node.name in self._dependent or not cuts):
                times = int(size.reshape(-1)[place]) // self._rows
                self._replace(node, index, self._size.sized(size, place, times), size.dtype)
                count += 1
        for node, index, size in self._constants(ELEMENTS, most_dims=1):
            if size.ndim == 1 and size[0] == self._rows:
                made = self._size.const(np.append([-1], size[1:]).astype(size.dtype))
                self._replace(node, index, made, size.dtype)
                count += 1
        return count

    def open_counts(self) -> int:
        """Put the rows of the moment where a number of elements or steps is the batch."""
        count = 0
        numbers = list(self._constants(COUNTS, most_dims=0))
        for node in self._nodes("While", "StatelessWhile"):
            ends = {node.op: tuple(range(len(node.attr["T"].list.type)))}
            numbers += [found for found in self._constants(ends, most_dims=0) if found[0] is node]
        for node, index, number in numbers:
            if number.dtype.kind == "i" and int(number) == self._rows:
                self._replace(node, index, self._size.sized(number, 0, 1), number.dtype)
                count += 1
        return count

    def _constants(self, ops: Any, most_dims: int) -> Iterator[Tuple[Any, int, Any]]:
        """Inputs of ops that are constants: the node, which of its inputs, and the value."""
        for node in self._nodes(*ops):
            for index in ops[node.op]:
                value = self._baked(node, index)
                if value is not None and value.size and value.ndim <= most_dims:
                    yield node, index, value

    def open_constants(self) -> int:
        """Repeat what is the same for each row of a constant, such as a zero state; how many."""
        tiled: Dict[Edge, Tuple[str, Any]] = {}
        readers = self._readers()
        for node in self._nodes("Const"):
            sizes = [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim]
            if self._rows not in sizes or (len(sizes) == 1 and not readers[node.name] <= VALUES):
                continue
            value = tf.make_ndarray(node.attr["value"].tensor)
            dim = sizes.index(self._rows)
            first = value.take([0], axis=dim)
            if bool((value == first).all()):
                tiled[Edge(node.name, 0)] = (self._size.repeated(first, dim), value.dtype)
        for node in self._nodes():
            for index, text in enumerate(node.input):
                if Edge.parse(text) in tiled:
                    name, dtype = tiled[Edge.parse(text)]
                    self._replace(node, index, name, dtype)
        return len(tiled)

    def _replace(self, node: Any, index: int, name: str, dtype: Any) -> None:
        """Put a tensor of the main graph in the place of an input, in whatever loop that is."""
        node.input[index] = self._size.entered(name, dtype, self._frames.get(node.name, ()))

    def _readers(self) -> Dict[str, Set[str]]:
        """The ops that read each node."""
        found: Dict[str, Set[str]] = {node.name: set() for node in self.graph_def.node}
        for node in self.graph_def.node:
            for text in node.input:
                edge = Edge.parse(text)
                if edge.index != CONTROL:
                    found[edge.node].add(node.op)
        return found

    def _nodes(self, *ops: str) -> List[Any]:
        """The graph's own nodes of these ops, of any op without one."""
        return [
            node
            for node in self.graph_def.node
            if (not ops or node.op in ops) and not node.name.startswith(SCOPE)
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
        tensor = self._graph.get_tensor_by_name(f"{edge.node}:{edge.index}")
        value = tf.get_static_value(tensor)
        return computed(tensor) if value is None else value

    def _whole_shape(self, node: Any, shape: Any) -> List[int]:
        """The result's dimensions in the graph as it was; [] when one is not known."""
        result = self._graph.get_operation_by_name(node.name).outputs[0].shape
        if result.is_fully_defined():
            return [int(size) for size in result.as_list()]
        return [] if -1 in shape else [int(size) for size in shape]
