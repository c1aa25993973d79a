"""Calls of functions -> the functions' nodes in the place of the calls, in every body."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Tuple

from batchinfer.errors import ConversionError
from conversion.graphs.call_sites import CallSite, Placed
from conversion.graphs.frames import guarded
from conversion.graphs.functions import body_of, put_body
from conversion.graphs.graph import CONTROL, Edge, GraphView, copied, with_nodes
from conversion.surgery.rewrite import Rewrite

# Op that calls a function -> its attribute that names it. Other calls have it as their op.
CALLS = {
    "TPUPartitionedCall": "f",
    "PartitionedCall": "f",
    "StatefulPartitionedCall": "f",
    "BatchFunction": "f",  # batching is the runtime's job
    "RemoteCall": "f",
    "XlaLaunch": "function",
}


def inline_functions(view: GraphView) -> Tuple[Any, int]:
    """Replace every call, nested ones and those in the bodies of loops and branches included.

    Also calls without TPU ops: what acts on the main graph only (the search for variables,
    the runtime's automatic mixed precision) then sees the whole model. Functions that ops
    such as While and If call stay, with the calls in them replaced.

    A call runs all effects of its function (asserts, prints) before its results are read, and
    runs nothing in a branch that is not taken or outside of its loop's frame. So do its nodes.

    Raises:
        ConversionError: functions that call themselves, or that are not there.
    """
    inliner = _Inliner(view)
    made = copied(with_nodes(view.graph_def, inliner.inlined(view.graph_def.node)))
    functions = {function.signature.name: function for function in made.library.function}
    staying: Dict[str, Any] = {}
    waiting = [name for node in made.node for name in view.called_by(node)]
    while waiting:
        name = waiting.pop()
        if name not in staying:
            staying[name] = functions[name]
            body = inliner.body(name)
            put_body(functions[name], with_nodes(made, body))
            waiting += [called for node in body for called in view.called_by(node)]
    kept = [type(one).FromString(one.SerializeToString()) for one in staying.values()]
    del made.library.function[:]
    made.library.function.extend(sorted(kept, key=lambda one: str(one.signature.name)))
    return made, inliner.count


class _Inliner:
    """Expands each function once, whatever the number of its calls.

    Attributes:
        count: calls replaced; one in a function that is itself called twice counts once.
    """

    def __init__(self, view: GraphView) -> None:
        self.count = 0
        self._functions = view.functions
        self._bodies: Dict[str, List[Any]] = {}
        self._open: List[str] = []

    def body(self, name: str) -> List[Any]:
        """The nodes of `functions.body_of`, every call in them replaced."""
        if name in self._open:
            circle = self._open[self._open.index(name) :] + [name]
            raise ConversionError(
                f"function calls go in a circle: {' -> '.join(circle[:10])}; "
                "expected functions that end, found one that calls itself"
            )
        if name not in self._bodies:
            self._open.append(name)
            function = self._functions[name]
            awaited = function.control_ret.values()
            self._bodies[name] = self.inlined(body_of(function).node, awaited)
            self._open.pop()
        return self._bodies[name]

    def inlined(self, nodes: Iterable[Any], awaited: Iterable[str] = ()) -> List[Any]:
        """The nodes of one graph or body, with those of functions instead of their calls.

        Args:
            awaited: names of nodes that something outside waits for.
        """
        nodes = list(nodes)
        callees = {node.name: self._callee(node) for node in nodes if self._callee(node)}
        if not callees:
            return nodes
        self.count += len(callees)
        taken, inside = {node.name for node in nodes}, guarded(nodes)
        made: List[Any] = []
        places: Dict[str, Placed] = {}
        for node in nodes:
            if node.name not in callees:
                made.append(type(node).FromString(node.SerializeToString()))
                continue
            function = self._functions[callees[node.name]]
            body = self.body(callees[node.name])
            site = CallSite(node, function, body, taken, node.name in inside)
            places[node.name] = site.placed()
            made += places[node.name].nodes
        made += _ends(made, places, awaited)
        for node in made:
            node.input[:] = [_redirected(text, places) for text in node.input]
        return made

    def _callee(self, node: Any) -> str:
        """The function to put in the node's place, or "" when the node stays."""
        if node.op in self._functions:
            return str(node.op)
        if node.op not in CALLS:
            return ""
        name = node.attr[CALLS[node.op]].func.name
        if name not in self._functions:
            raise ConversionError(
                f"node {node.name} calls function {name}, which is not in the graph's library of "
                f"{len(self._functions)} functions; expected a whole artifact: export it again"
            )
        return str(name)


def _ends(nodes: Iterable[Any], places: Dict[str, Placed], awaited: Iterable[str]) -> List[Any]:
    """The NoOps of the calls that some node, or something outside, waits for."""
    waiting = [text[1:] for node in nodes for text in node.input if text[0] == "^"]
    waiting += awaited
    found: Dict[str, Any] = {}
    while waiting:
        name = waiting.pop()
        if name in places and name not in found:
            found[name] = places[name].end
            waiting += [text[1:] for text in found[name].input]
    return list(found.values())


def _redirected(text: str, places: Dict[str, Placed]) -> str:
    """Follow a tensor out of a call into its body, which may give what another call gave.

    An edge that waits for a call stays: the call's end is a NoOp of its name.
    """
    edge = Edge.parse(text)
    if edge.index == CONTROL:
        return text
    while edge.node in places:
        edge = places[edge.node].results[edge.index]
    return str(edge)


REWRITE = Rewrite(
    name="inline_functions",
    does="puts the nodes of functions in the place of their calls",
    run=inline_functions,
    sees="flat",
    fates=dict.fromkeys(CALLS, "replaced by the nodes of its function"),
)
