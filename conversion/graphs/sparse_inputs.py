"""SparseTensor inputs of a signature -> rows padded to one length, and how long each row is.

The three tensors of a SparseTensor have no leading batch dimension, so they cannot be fed row by
row. In their place the graph makes them of two tensors that have one, exactly: entry (i, j) for
each j below the length of row i, in the order in which TensorFlow keeps them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge, GraphView, copied

SCOPE = "ragged/"


@dataclass(frozen=True)
class Sparse:
    """A SparseTensor of a signature.

    Attributes:
        values, indices, dense_shape: names of its tensors.
        dtype: of its values.
        shape: dimensions, None where they are open; itself None where the rank is not said.
    """

    values: str
    indices: str
    dense_shape: str
    dtype: Any
    shape: Optional[Tuple[Optional[int], ...]]

    @classmethod
    def of(cls, info: Any) -> Sparse:
        """From a TensorInfo whose encoding is coo_sparse."""
        coo = info.coo_sparse
        shape = tf.TensorShape(info.tensor_shape)
        return cls(
            coo.values_tensor_name,
            coo.indices_tensor_name,
            coo.dense_shape_tensor_name,
            tf.as_dtype(info.dtype),
            None if shape.ndims is None else tuple(shape.as_list()),
        )

    @property
    def tensors(self) -> Tuple[str, str, str]:
        return self.values, self.indices, self.dense_shape


@dataclass(frozen=True)
class Fed:
    """What is fed in place of a SparseTensor.

    Attributes:
        rows: tensor of shape (n, longest row), any values behind a row's own.
        lengths: int64[n] tensor.
        shape: as the bundle's signature has it: (n, most values in a row), None where open.
    """

    rows: str
    lengths: str
    shape: Tuple[Optional[int], Optional[int]]


def require_rank(name: str, sparse: Sparse) -> None:
    """Refuse what a list per row cannot say.

    Raises:
        InputError: another rank than 2.
    """
    if sparse.shape is not None and len(sparse.shape) != 2:
        raise InputError(
            f"{name} is a sparse tensor of {len(sparse.shape)} dimensions; expected 2, rows and "
            "the values of a row, which a list column can feed"
        )


def with_ragged_inputs(graph_def: Any, inputs: Mapping[str, Sparse]) -> Tuple[Any, Dict[str, Fed]]:
    """Feed each SparseTensor from two dense placeholders.

    Returns:
        The graph, and the placeholders by input name.

    Raises:
        InputError: a SparseTensor of another rank than 2.
    """
    made, fed = copied(graph_def), {}
    for name, sparse in sorted(inputs.items()):
        require_rank(name, sparse)
        scope = _free_scope(made, SCOPE + re.sub(r"[^A-Za-z0-9_.-]", "_", name))
        nodes, moved, fed[name] = _snippet(scope, sparse)
        _redirect(made, dict(zip(sparse.tensors, moved)), fed[name].rows)
        made.node.extend(nodes)
    return made, fed


def _snippet(scope: str, sparse: Sparse) -> Tuple[List[Any], List[str], Fed]:
    """Its nodes, the tensors that take the place of the SparseTensor's, and what is fed."""
    num_rows, most = sparse.shape or (None, None)
    with tf.Graph().as_default() as graph, tf.name_scope(scope + "/"):
        rows = tf.placeholder(sparse.dtype, [num_rows, None], name="rows")
        lengths = tf.placeholder(tf.int64, [num_rows], name="lengths")
        size = tf.shape(rows, out_type=tf.int64)
        own = tf.range(size[1]) < lengths[:, tf.newaxis]
        indices = tf.where(own)
        values = tf.gather_nd(rows, indices)
        # Even a graph that reads only the shape is fed both, so that a bundle always takes both.
        with tf.control_dependencies([lengths]):
            height = tf.identity(size[0])
        width = tf.reduce_max(tf.concat([lengths, [0]], 0)) if most is None else most
        dense_shape = tf.stack([height, tf.cast(width, tf.int64)])
    moved = [tensor.name for tensor in (values, indices, dense_shape)]
    return list(graph.as_graph_def().node), moved, Fed(rows.name, lengths.name, (num_rows, most))


def _redirect(graph_def: Any, moved: Dict[str, str], rows: str) -> None:
    """Let the readers of the SparseTensor's tensors read what takes their place."""
    edges = {str(Edge.parse(old)): str(Edge.parse(new)) for old, new in moved.items()}
    nodes = GraphView(graph_def).nodes
    for old in moved:
        name = Edge.parse(old).node
        if name in nodes and nodes[name].op == "Placeholder":  # nothing will feed it any more
            edges["^" + name] = "^" + Edge.parse(rows).node
    for node in graph_def.node:
        node.input[:] = [edges.get(_spelled(text), text) for text in node.input]


def _spelled(text: str) -> str:
    """An edge in the one spelling: `a:0` is `a`."""
    return str(Edge.parse(text))


def _free_scope(graph_def: Any, scope: str) -> str:
    while any(node.name.startswith(scope + "/") for node in graph_def.node):
        scope += "_"
    return scope
