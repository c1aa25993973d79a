"""One call of a function -> the nodes of the function's body, under the call's name."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, List, NamedTuple, Sequence, Set

from batchinfer.errors import ConversionError
from conversion.graphs.always_run import always_run
from conversion.graphs.clusters import BOOKKEEPING, CLUSTER, METADATA
from conversion.graphs.frames import behind
from conversion.graphs.functions import ARGUMENT, RESULT, free_name
from conversion.graphs.graph import CONTROL, Edge
from conversion.graphs.inventory import RANDOM
from conversion.tf_internals import op_def

FIRST_TO_GO = ("RemoteCall",)  # their first tensor says on which device to run
LAST_TO_GO = ("TPUPartitionedCall",)  # their last tensor says on which TPU core to run
HANDLES = ("VarHandleOp", "VariableV2", "Variable")
WITHOUT_EFFECT = HANDLES + RANDOM + BOOKKEEPING + ("ReadVariableOp", "Placeholder")


class Placed(NamedTuple):
    """What stands in the place of a call.

    Attributes:
        nodes: the body's nodes, and those that tie them to the rest of the graph.
        results: the edges that give what the call gave.
        end: a NoOp of the call's name that waits for the body, for nodes that wait for the call.
    """

    nodes: List[Any]
    results: List[Edge]
    end: Any


class CallSite:
    """Names, edges and attributes of a function's body as they are at one call.

    Args:
        call: the node that calls.
        function: the FunctionDef.
        body: its nodes, as `functions.body_of` gives them, without calls.
        taken: names of the graph that the nodes are put into; the new ones are added.
        inside: the call is in a branch or a loop, or waits for other nodes. The nodes then
            wait for the call's inputs, so that they run only where and when the call would.
    """

    def __init__(
        self, call: Any, function: Any, body: Sequence[Any], taken: Set[str], inside: bool
    ) -> None:
        self._call, self._function, self._taken = call, function, taken
        self._arguments = [node for node in body if node.op == ARGUMENT]
        self._results = [node for node in body if node.op == RESULT]
        self._inner = [node for node in body if node.op not in (ARGUMENT, RESULT)]
        self._prefix = _free_prefix(call.name, self._inner, taken)
        self._names = {node.name: self._prefix + node.name for node in self._inner}
        taken.update(self._names.values())
        self._own_clusters = _own_clusters(self._inner)
        self._given = call.attr if call.op == function.signature.name else _func(call).attr
        self._waits_for = [text for text in call.input if text.startswith("^")]
        self._guarded = inside or bool(self._waits_for)
        self._added: List[Any] = []
        self._tensors: Dict[str, Edge] = {}
        self._start: List[str] = []

    def placed(self) -> Placed:
        """Copy the body.

        Raises:
            ConversionError: the call gives another number of tensors than the function takes,
                or not all types.
        """
        self._tie_inputs()
        nodes = [self._node(node) for node in self._inner]
        effects = [self._names[name] for name in self._effects()]
        results = [self._edge(node.input[0]) for node in self._results]
        if effects:  # the call gives nothing before its effects are done
            after = ["^" + name for name in effects]
            results = [
                self._identity(f"result_{index}", edge, self._results[index], after)
                for index, edge in enumerate(results)
            ]
        nodes += self._added
        ends = effects or [edge.node for edge in results or self._tensors.values()]
        after = ["^" + name for name in dict.fromkeys(ends)] or self._start
        return Placed(nodes, results, self._new(self._call.name, "NoOp", after))

    def _tie_inputs(self) -> None:
        """Find the tensor of each argument, behind an Identity where deadness has to pass."""
        tensors = [Edge.parse(text) for text in self._call.input if not text.startswith("^")]
        tensors = tensors[1:] if self._call.op in FIRST_TO_GO else tensors
        tensors = tensors[:-1] if self._call.op in LAST_TO_GO else tensors
        if len(tensors) != len(self._arguments):
            raise ConversionError(
                f"node {self._call.name} ({self._call.op}) gives its function {len(tensors)} "
                f"tensors; expected {len(self._arguments)}"
            )
        if self._guarded:
            tensors = [
                self._identity(f"argument_{index}", tensor, argument, self._waits_for)
                for index, (tensor, argument) in enumerate(zip(tensors, self._arguments))
            ]
            name = free_name(self._prefix + "start", self._taken)
            after = [str(Edge(tensor.node, CONTROL)) for tensor in tensors]
            self._added.append(self._new(name, "NoOp", after or self._waits_for))
            self._start = ["^" + name]
        self._tensors = {node.name: tensor for node, tensor in zip(self._arguments, tensors)}

    def _identity(self, name: str, tensor: Edge, end: Any, after: List[str]) -> Edge:
        """Add an Identity with the type of an `_Arg` or `_Retval` node."""
        made = self._new(
            free_name(self._prefix + name, self._taken), "Identity", [str(tensor)] + after
        )
        made.attr["T"].CopyFrom(end.attr["T"])
        self._fill(made.attr)
        self._added.append(made)
        return Edge(made.name, 0)

    def _new(self, name: str, op: str, inputs: List[str]) -> Any:
        made = type(self._call)(name=name, op=op, input=inputs)
        if CLUSTER in self._call.attr:
            made.attr[CLUSTER].CopyFrom(self._call.attr[CLUSTER])
        return made

    def _edge(self, text: str) -> Edge:
        edge = Edge.parse(text)
        if edge.node in self._names:
            return Edge(self._names[edge.node], edge.index)
        tensor = self._tensors[edge.node]
        return Edge(tensor.node, CONTROL) if edge.index == CONTROL else tensor

    def _node(self, node: Any) -> Any:
        made = type(node)()
        made.CopyFrom(node)
        made.name = self._names[node.name]
        made.input[:] = [str(self._edge(text)) for text in node.input] or self._start
        self._fill(made.attr)
        self._rename_attrs(node, made)
        return made

    def _rename_attrs(self, node: Any, made: Any) -> None:
        """Colocation, loops, clusters and variables that are named after nodes."""
        prefix = self._prefix.encode()
        if "_class" in made.attr:
            places = made.attr["_class"].list
            places.s[:] = [self._place(place) for place in places.s]
        if "frame_name" in made.attr:  # two calls of one function must not share a loop
            made.attr["frame_name"].s = prefix + made.attr["frame_name"].s
        if node.op in HANDLES and not made.attr["shared_name"].s:
            made.attr["shared_name"].s = node.name.encode()
        cluster = made.attr[CLUSTER].s if CLUSTER in made.attr else b""
        if cluster and (cluster in self._own_clusters or CLUSTER not in self._call.attr):
            made.attr[CLUSTER].s = prefix + cluster
        elif CLUSTER in self._call.attr:  # what a cluster calls belongs to it
            made.attr[CLUSTER].CopyFrom(self._call.attr[CLUSTER])

    def _place(self, place: bytes) -> bytes:
        name = place[len(b"loc:@") :].decode()
        return b"loc:@" + self._names.get(name, name).encode()

    def _fill(self, attrs: Any) -> None:
        """Put in the types that the call gives, also in what the body's nodes call."""
        for attr in attrs.values():
            if attr.placeholder:
                attr.CopyFrom(self._value(attr.placeholder))
            for func in [attr.func] * attr.HasField("func") + list(attr.list.func):
                self._fill(func.attr)

    def _value(self, name: str) -> Any:
        if name in self._given:
            return self._given[name]
        for attr in self._function.signature.attr:
            if attr.name == name and attr.HasField("default_value"):
                return attr.default_value
        raise ConversionError(
            f"function {self._function.signature.name} needs attribute {name}, which its call "
            f"{self._call.name} does not give; it has {', '.join(sorted(self._given)) or 'none'}"
        )

    def _effects(self) -> List[str]:
        """Nodes that run whenever the function is called, read or not.

        A FunctionDef lists them as control outputs, but those of tf.Defun do not; there they are
        the ends of what begins with a stateful node: an Assert, or the Merge behind the branch
        that it is in. What ends inside of a branch cannot be waited for, since it may not run.
        """
        listed = list(self._function.control_ret.values())
        body = self._inner + self._results
        stateful = [
            node.name
            for node in self._inner
            if _is_stateful(node.op) and not node.op.startswith(WITHOUT_EFFECT)
        ]
        read = {Edge.parse(text).node for node in body for text in node.input}
        ends = (behind(body, stateful) - read) & always_run(body) if stateful else set()
        without = {node.name for node in self._inner if node.op.startswith(WITHOUT_EFFECT)}
        found = dict.fromkeys(listed + [node.name for node in self._inner if node.name in ends])
        return [name for name in found if name in self._names and name not in without]


def _free_prefix(call: str, inner: Sequence[Any], taken: Set[str]) -> str:
    """The call's name and a slash, or more where that would give two nodes one name."""
    prefix, number = call + "/", 0
    while any(prefix + node.name in taken for node in inner):
        number += 1
        prefix = f"{call}/body_{number}/"
    return prefix


def _own_clusters(inner: Sequence[Any]) -> FrozenSet[bytes]:
    """Clusters that begin in this body, and are others at each call."""
    begin = [node for node in inner if node.op == METADATA and CLUSTER in node.attr]
    return frozenset(node.attr[CLUSTER].s for node in begin)


def _func(call: Any) -> Any:
    """The function that a call names in an attribute."""
    return call.attr["function" if call.op == "XlaLaunch" else "f"].func


def _is_stateful(op: str) -> bool:
    definition = op_def(op)
    return definition is not None and definition.is_stateful
