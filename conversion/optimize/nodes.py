"""New nodes of an optimisation, under names that are free."""

from __future__ import annotations

from typing import Any, Iterable, List

import numpy as np

from batchinfer.tf1 import tf
from conversion.graphs.functions import free_name

FOLDED = ("folded_weights", "folded_bias")  # ends of the names of what a fold computes anew


class Nodes:
    """What an optimisation adds to a graph; each call gives the edge of what it made.

    Attributes:
        made: the nodes, in their order.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self.made: List[Any] = []
        self._taken = set(taken)

    def add(self, name: str, op: str, *inputs: str, dtype: Any = tf.float32) -> str:
        """A node of one dtype, its attribute `T`."""
        node = tf.NodeDef(name=free_name(name, self._taken), op=op, input=inputs)
        node.attr["T"].type = dtype.as_datatype_enum
        self.made.append(node)
        return str(node.name)

    def constant(self, name: str, value: Any) -> str:
        """A Const of an array."""
        array = np.asarray(value)
        dtype = tf.as_dtype(array.dtype)
        node = tf.NodeDef(name=free_name(name, self._taken), op="Const")
        node.attr["dtype"].type = dtype.as_datatype_enum
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, dtype, array.shape))
        self.made.append(node)
        return str(node.name)

    def reshaped(self, name: str, edge: str, dims: Iterable[int]) -> str:
        """A float32 tensor in another shape."""
        shape = self.constant(name + "/shape", np.array(list(dims), np.int32))
        made = self.add(name, "Reshape", edge, shape)
        self.made[-1].attr["Tshape"].type = tf.int32.as_datatype_enum
        return made

    def variable(self, name: str, dtype: Any, dims: Iterable[int]) -> str:
        """A resource variable and its one read; the edge is the read's."""
        handle = tf.NodeDef(name=free_name(name, self._taken), op="VarHandleOp")
        handle.attr["dtype"].type = dtype.as_datatype_enum
        handle.attr["shape"].shape.CopyFrom(tf.TensorShape(list(dims)).as_proto())
        handle.attr["shared_name"].s = handle.name.encode()
        read = tf.NodeDef(
            name=free_name(handle.name + "/ReadVariableOp", self._taken),
            op="ReadVariableOp",
            input=[handle.name],
        )
        read.attr["dtype"].type = dtype.as_datatype_enum
        self.made += [handle, read]
        return str(read.name)
