"""What depends on variables and constants alone -> variables and constants of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Tuple

import numpy as np

from batchinfer.errors import ConversionError
from conversion.graphs.constants import constant_value
from conversion.graphs.graph import Edge, GraphView, copied
from conversion.optimize.kinds import FREE, SOURCES
from conversion.optimize.nodes import FOLDED, Nodes
from conversion.optimize.static_values import Static
from conversion.optimize.worth import chosen
from conversion.weights.variables import variable_name


@dataclass(frozen=True)
class Folded:
    """A value that is computed once, at conversion, and a variable of the bundle.

    Attributes:
        target: the variable's name.
        edge: the tensor that it takes the place of, in the graph before.
        dtype, shape: of the value.
        sources: names of the variables that it is computed of.
        read: their names in the checkpoint of the source.
        ops: kinds of the nodes that compute it.
        size_bytes: of the value and of what it is computed of, together.
    """

    target: str
    edge: Edge
    dtype: str
    shape: Tuple[int, ...]
    sources: FrozenSet[str]
    ops: Tuple[str, ...]
    size_bytes: int
    read: Tuple[str, ...] = ()

    def to_json(self) -> Dict[str, Any]:
        """The variable's entry in the manifest."""
        return {
            "source": list(self.read),
            "dtype": self.dtype,
            "shape": list(self.shape),
            "computed_by": list(self.ops),
        }


@dataclass(frozen=True)
class Precomputed:
    """A graph that reads values in place of computing them.

    Attributes:
        graph_def: after; the nodes that nothing needs any more are still there.
        folded: variables to be made.
        count: values, those of constants alone included.
    """

    graph_def: Any
    folded: Tuple[Folded, ...]
    count: int


def precompute(view: GraphView, constants_alone: bool = False) -> Precomputed:
    """Only floats, and those that are worth it (`worth.py`).

    Args:
        constants_alone: leave what depends on variables.

    Raises:
        ConversionError: a value of folded constants is not finite.
    """
    static = Static(view)
    handles = [node for node in view.graph_def.node if node.op == "VarHandleOp"]
    new = Nodes([*view.nodes, *map(variable_name, handles)])
    moved: Dict[Edge, str] = {}
    folded: List[Folded] = []
    for edge in chosen(static, constants_alone):
        sources = static.variables(edge.node)
        value = None if sources else constant_value(view, edge)
        name = f"{edge.node}/folded"
        if sources:
            moved[edge] = new.variable(name, static.tensor(edge).dtype, static.dims(edge) or ())
            folded.append(_folded(static, edge, new.made[-2].name))
        elif value is not None:
            if edge.node in static.from_folds:
                refuse_infinite([(str(edge), bool(np.all(np.isfinite(value))))])
            moved[edge] = new.constant(name, value)
    made = copied(view.graph_def)
    for node in made.node:
        node.input[:] = [moved.get(Edge.parse(text), text) for text in node.input]
    made.node.extend(new.made)
    return Precomputed(made, tuple(folded), len(moved))


def _folded(static: Static, edge: Edge, target: str) -> Folded:
    tensor, cone = static.tensor(edge), static.cone(edge.node)
    ops = {static.view.nodes[name].op for name in cone} - SOURCES - FREE
    made, read = static.sizes_bytes(edge)
    return Folded(
        target,
        edge,
        tensor.dtype.name,
        static.dims(edge) or (),
        static.variables(edge.node),
        tuple(sorted(ops)),
        made + read,
    )


def folds(names: Iterable[str]) -> List[str]:
    """The nodes among them that `batch_norm` made: what the plain graph has no value for.

    Other values are those of the plain graph, be they infinite as in a mask or not.
    """
    return sorted(name for name in names if name.rpartition("/")[2].startswith(FOLDED))


def refuse_infinite(values: Iterable[Tuple[str, bool]]) -> None:
    """Refuse to go on with values that would spread where there was no infinity before.

    Args:
        values: names, and whether all their numbers are finite.

    Raises:
        ConversionError: some are not.
    """
    names = [name for name, finite in values if not finite]
    if names:
        raise ConversionError(f"computed ahead, {', '.join(names[:3])} would not be finite")
