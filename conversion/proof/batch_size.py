"""Nodes that compute, inside a graph, how many rows its batch has at the moment."""

from __future__ import annotations

from typing import Any, List, NamedTuple, Sequence

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge

SCOPE = "open_batch"


class Frame(NamedTuple):
    """A loop of TF 1, as its Enter nodes have it."""

    name: bytes
    parallel_iterations: int


class BatchSize:
    """Adds nodes to a GraphDef, all of them under `SCOPE`.

    Attributes:
        graph_def: what is added to.
    """

    def __init__(self, graph_def: Any, model_input: Edge, dtype: Any) -> None:
        """Args:
        model_input: the tensor whose first dimension is the batch, of `dtype`.
        """
        self.graph_def = graph_def
        self._input = model_input
        self._dtype = tf.as_dtype(dtype)
        self._names = {node.name for node in graph_def.node}

    def sized(self, shape: Any, place: int, times: int) -> str:
        """A tensor like the array `shape`, with `times` the batch's rows as one of its numbers."""
        rows = self._rows(shape.dtype)
        if times != 1:
            factor = self.const(np.array([times], shape.dtype))
            rows = self.add("times", "Mul", [rows, factor], T=shape.dtype).name
        if shape.ndim == 0:
            no_dims = self.const(np.array([], np.int32))
            return str(
                self.add("scalar", "Reshape", [rows, no_dims], T=shape.dtype, Tshape=np.int32).name
            )
        return self._around(rows, shape[:place], shape[place + 1 :])

    def _around(self, rows: str, before: Any, after: Any) -> str:
        """One vector: the numbers before, the rows, and the numbers after."""
        parts = [part for part in (before, rows, after) if isinstance(part, str) or part.size]
        if len(parts) == 1:
            return rows
        names = [part if isinstance(part, str) else self.const(part) for part in parts]
        inputs = [*names, self.const(np.array(0, np.int32))]
        made = self.add("shape", "ConcatV2", inputs, T=before.dtype, Tidx=np.int32)
        made.attr["N"].i = len(names)
        return str(made.name)

    def repeated(self, slice_of: Any, dim: int) -> str:
        """An array of size 1 in a dimension, repeated there for each row of the batch."""
        before, after = np.ones(dim, np.int32), np.ones(slice_of.ndim - dim - 1, np.int32)
        many = self._around(self._rows(before.dtype), before, after)
        types = {"T": slice_of.dtype, "Tmultiples": np.int32}
        return str(self.add("rows", "Tile", [self.const(slice_of), many], **types).name)

    def entered(self, name: str, dtype: Any, frames: Sequence[Frame]) -> str:
        """A tensor as the inside of loops reads it, from the outermost to the innermost."""
        for frame in frames:
            made = self.add("enter", "Enter", [name], T=dtype)
            made.attr["frame_name"].s = frame.name
            made.attr["parallel_iterations"].i = frame.parallel_iterations
            made.attr["is_constant"].b = True
            name = made.name
        return name

    def const(self, value: Any) -> str:
        made = self.add("const", "Const", [], dtype=value.dtype)
        made.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype=value.dtype))
        return str(made.name)

    def add(self, name: str, op: str, inputs: List[str], **types: Any) -> Any:
        """Add a node under a free name; the attributes are types."""
        free, number = f"{SCOPE}/{name}", 0
        while free in self._names:
            number += 1
            free = f"{SCOPE}/{name}_{number}"
        self._names.add(free)
        made = self.graph_def.node.add(name=free, op=op, input=inputs)
        for key, dtype in types.items():
            made.attr[key].type = tf.as_dtype(dtype).as_datatype_enum
        return made

    def _rows(self, dtype: Any) -> str:
        """A vector of one number."""
        shape = self.add("input", "Shape", [str(self._input)], T=self._dtype, out_type=dtype).name
        zero, one = self.const(np.array([0], np.int32)), self.const(np.array([1], np.int32))
        inputs = [shape, zero, one, one]
        return str(self.add("size", "StridedSlice", inputs, T=dtype, Index=np.int32).name)
