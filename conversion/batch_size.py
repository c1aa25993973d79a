"""Nodes that compute, inside a graph, how many rows its batch has at the moment."""

from __future__ import annotations

from typing import Any, List

import numpy as np

from batchinfer.tf1 import tf
from conversion.graph import Edge

SCOPE = "open_batch"


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

    def sized(self, shape: Any, times: int) -> str:
        """A tensor like the array `shape`, with `times` the batch's rows as its first number."""
        rows = self._rows(shape.dtype)
        if times != 1:
            rows = self.add("times", "Mul", [rows, self.const(np.array([times], shape.dtype))],
                            T=shape.dtype).name  # fmt: skip
        if shape.ndim == 0:
            no_dims = self.const(np.array([], np.int32))
            return str(
                self.add("scalar", "Reshape", [rows, no_dims], T=shape.dtype, Tshape=np.int32).name
            )
        return self.joined(rows, shape[1:]) if shape.size > 1 else rows

    def joined(self, rows: str, rest: Any) -> str:
        """The vector `rows`, then the numbers of the array `rest`."""
        inputs = [rows, self.const(rest), self.const(np.array(0, np.int32))]
        made = self.add("shape", "ConcatV2", inputs, T=rest.dtype, Tidx=np.int32)
        made.attr["N"].i = 2
        return str(made.name)

    def repeated(self, row: Any) -> str:
        """An array of one row, repeated for each row of the batch."""
        ones = np.ones(row.ndim - 1, np.int32)
        many = self.joined(self._rows(ones.dtype), ones)
        inputs = [self.const(row), many]
        return str(self.add("rows", "Tile", inputs, T=row.dtype, Tmultiples=np.int32).name)

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
