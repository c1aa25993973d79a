"""Ops of XLA's own interface, where user code calls them -> ops that a CPU and a GPU have."""

from __future__ import annotations

from typing import Any, Iterable, List, Optional, Tuple

from conversion.graphs import xla
from conversion.graphs.graft import Site, graft
from conversion.graphs.graph import GraphView
from conversion.graphs.xla_conv import Window, convolution
from conversion.surgery.rewrite import Rewrite
from conversion.tf_internals import attr_value, xla_message


def xla_ops(view: GraphView) -> Tuple[Any, int]:
    """Each is replaced where an exact equivalent exists; the rest stay, and are refused."""
    return graft(view, BUILDERS)


def _dot(site: Site) -> Optional[List[Any]]:
    numbers = _numbers(site, "DotDimensionNumbers")
    lhs, rhs = site.inputs
    return _one(xla.dot_general(lhs, rhs, numbers) if numbers else None)


def _conv(site: Site) -> Optional[List[Any]]:
    numbers = _numbers(site, "ConvolutionDimensionNumbers")
    values = _constants(site, range(2, 7))
    if numbers is None or values is None:
        return None
    strides, padding, input_rates, kernel_rates, groups = values
    low, high = [pair[0] for pair in padding], [pair[1] for pair in padding]
    window = Window(strides, low, high, input_rates, kernel_rates, groups)
    return _one(convolution(site.inputs[0], site.inputs[1], window, numbers))


def _numbers(site: Site, kind: str) -> Optional[Any]:
    """The attribute that says which dimension is which; None where its proto is not known."""
    return xla_message(kind, attr_value(site.node, "dimension_numbers").s)


def _pad(site: Site) -> Optional[List[Any]]:
    edges = _constants(site, (2, 3, 4))
    return _one(xla.pad(site.inputs[0], site.inputs[1], *edges)) if edges else None


def _dynamic_slice(site: Site) -> Optional[List[Any]]:
    sizes = _constants(site, (2,))
    x, start, _ = site.inputs
    return _one(xla.dynamic_slice(x, start, sizes[0])) if sizes else None


def _dynamic_update_slice(site: Site) -> Optional[List[Any]]:
    return _one(xla.dynamic_update_slice(*site.inputs))


def _sort(site: Site) -> Optional[List[Any]]:
    return xla.sort(*site.inputs)


def _broadcast_helper(site: Site) -> Optional[List[Any]]:
    axes = _constants(site, (2,))
    lhs, rhs, _ = site.inputs
    made = xla.broadcast_helper(lhs, rhs, axes[0]) if axes else None
    return None if made is None else list(made)


def _reduce(site: Site) -> Optional[List[Any]]:
    op = _reducer(site)
    x, init = site.inputs
    axes = list(attr_value(site.node, "dimensions_to_reduce").list.i)
    return _one(xla.reduce(x, init, axes, op)) if op else None


def _reducer(site: Site) -> str:
    """The one op of a reducer that combines its two arguments by it, in either order; or ""."""
    function = site.functions.get(attr_value(site.node, "reducer").func.name)
    if function is None or len(function.node_def) != 1:
        return ""
    node = function.node_def[0]
    arguments = sorted(argument.name for argument in function.signature.input_arg)
    returned = [text.partition(":")[0] for text in function.ret.values()]
    plain = sorted(node.input) == arguments and len(arguments) == 2 and returned == [node.name]
    return node.op if plain and node.op in xla.REDUCERS else ""


def _constants(site: Site, indices: Iterable[int]) -> Optional[List[Any]]:
    """Some of the inputs as Python values; None when one of them is no constant."""
    found = [site.value(index) for index in indices]
    return (
        None
        if any(one is None for one in found)
        else [one.tolist() for one in found if one is not None]
    )


def _one(made: Optional[Any]) -> Optional[List[Any]]:
    return None if made is None else [made]


BUILDERS = {
    "XlaDot": _dot,
    "XlaConv": _conv,
    "XlaPad": _pad,
    "XlaDynamicSlice": _dynamic_slice,
    "XlaDynamicUpdateSlice": _dynamic_update_slice,
    "XlaSort": _sort,
    "XlaKeyValueSort": _sort,
    "XlaBroadcastHelper": _broadcast_helper,
    "XlaReduce": _reduce,
}

REWRITE = Rewrite(
    name="xla_ops",
    does="replaces XLA's own dot, convolution, padding, slices, sums and sorts by TensorFlow's",
    run=xla_ops,
    fates=dict.fromkeys(BUILDERS, "replaced by ops that a CPU and a GPU have"),
)
