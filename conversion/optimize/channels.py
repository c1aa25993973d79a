"""Convolutions and products, what is added to them, and factors and terms for each channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.graph import Edge
from conversion.optimize.static_values import Static, data_edges, volume
from conversion.tf_internals import attr_value

LINEAR = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
SUMS = ("Add", "AddV2")
FLOAT32 = tf.float32.as_datatype_enum


@dataclass(frozen=True)
class Linear:
    """A convolution or product by weights of its own, and what leads from it to a reader.

    Attributes:
        node: the Conv2D, DepthwiseConv2dNative or MatMul.
        weights: the tensor of its weights, and their shape.
        channels: how many it gives.
        first: its channels are the dimension after the batch (NCHW).
        bias: the BiasAdd, Add or AddV2 behind it; None without any.
        term: what that adds, a vector of the channels or one number.
    """

    node: Any
    weights: Edge
    dims: Tuple[int, ...]
    channels: int
    first: bool
    bias: Optional[Any] = None
    term: Optional[Edge] = None


def linear_before(static: Static, edge: Edge) -> Optional[Linear]:
    """The linear op that gives a tensor, where nothing but the reader of the tensor needs it.

    Between both may be identities and one bias.
    """
    bias: Optional[Tuple[Any, Edge]] = None
    while edge.index == 0:
        node = static.view.nodes[edge.node]
        alone = len(static.readers.get(node.name, ())) == 1 and node.name not in static.view.roots
        if not alone or node.name in static.names:
            return None
        if node.op in LINEAR:
            found = _linear(static, node)
            if found is None or bias is None:
                return found
            return _with_bias(static, found, *bias)
        if node.op == "Identity":
            edge = data_edges(node)[0]
            continue
        sides = sum_sides(static, node)
        if sides is None or bias is not None:
            return None
        edge, bias = sides[0], (node, sides[1])
    return None


def sum_sides(static: Static, node: Any) -> Optional[Tuple[Edge, Edge]]:
    """What is computed and what is constant of a float32 BiasAdd, Add or AddV2."""
    if node.op not in SUMS + ("BiasAdd",) or attr_value(node, "T").type != FLOAT32:
        return None
    return factors(static, node, ordered=node.op == "BiasAdd")


def factors(static: Static, node: Any, ordered: bool = False) -> Optional[Tuple[Edge, Edge]]:
    """Of an op's two tensors the one that is computed and the one that is constant."""
    left, right = data_edges(node)
    if right in static and left not in static:
        return left, right
    if left in static and right not in static and not ordered:
        return right, left
    return None


def channel_dims(static: Static, edge: Edge, linear: Linear) -> Optional[Tuple[int, ...]]:
    """(channels,) of a vector that is the same for each place of an image or row, () of one number.

    None: anything else, such as what makes the tensor larger that it is combined with.
    """
    dims = static.dims(edge)
    rank = 2 if linear.node.op == "MatMul" else 4
    if dims is None or len(dims) > rank or static.tensor(edge).dtype != tf.float32:
        return None
    if volume(dims) == 1:
        return ()
    axis = 1 if linear.first else rank - 1
    wanted = [1] * rank
    wanted[axis] = linear.channels
    return (linear.channels,) if list(dims) == wanted[rank - len(dims) :] else None


def _linear(static: Static, node: Any) -> Optional[Linear]:
    """With weights that nothing else needs: else they would be kept once for each reader."""
    weights = data_edges(node)[1]
    if attr_value(node, "T").type != FLOAT32 or weights not in static:
        return None
    dims = static.dims(weights)
    if dims is None or not static.fits(weights) or static.users(weights) != {node.name}:
        return None
    first = node.op != "MatMul" and attr_value(node, "data_format").s == b"NCHW"
    if node.op == "DepthwiseConv2dNative":
        channels = dims[2] * dims[3]
    elif node.op == "MatMul" and attr_value(node, "transpose_b").b:
        channels = dims[0]
    else:
        channels = dims[-1]
    return Linear(node, weights, dims, channels, first)


def _with_bias(static: Static, found: Linear, bias: Any, term: Edge) -> Optional[Linear]:
    made = Linear(found.node, found.weights, found.dims, found.channels, found.first, bias, term)
    if bias.op == "BiasAdd":
        first = attr_value(bias, "data_format").s == b"NCHW"
        fits = first == found.first and static.dims(term) == (found.channels,)
    else:
        fits = channel_dims(static, term, found) is not None
    return made if fits else None
