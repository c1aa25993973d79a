"""Clusters of a graph that run on several TPU cores: which nodes run once per replica."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Optional, Set

from batchinfer.tf1 import tf
from conversion.graphs.frames import frame_stacks
from conversion.graphs.graph import CONTROL, Edge, GraphView
from conversion.tf_internals import attr_value, op_def

CLUSTER = "_tpu_replicate"  # attribute that says to which cluster a node belongs
ENTRY, EXIT = "TPUReplicatedInput", "TPUReplicatedOutput"
METADATA = "TPUReplicateMetadata"
COLLECTIVES = ("CrossReplicaSum", "AllToAll", "CollectivePermute")
OWN_OF_A_REPLICA = COLLECTIVES + ("XlaReplicaId", "InfeedDequeue", "InfeedDequeueTuple")
BOOKKEEPING = (METADATA, "TPUCompilationResult", "TPUOrdinalSelector")


class Clusters:
    """The clusters of more than one replica.

    Attributes:
        num_replicas: by cluster; those of one replica are left out.
        members: cluster by node that there is once per replica, entries and exits included.
        common_frames: names of the loops inside of which replicas exchange tensors.
        problems: what cannot be told apart by replica, or copied exactly.
    """

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._marks = {
            node.name: node.attr[CLUSTER].s.decode()
            for node in view.graph_def.node
            if CLUSTER in node.attr
        }
        self.problems: List[str] = []
        self.num_replicas: Dict[str, int] = {}
        self.members: Dict[str, str] = {}
        self.common_frames: Set[str] = set()
        self._ends: Dict[str, str] = {}
        self._count_replicas()
        if self.num_replicas:
            self._find_members()
            self._check_readers()
            self._check_functions()

    def num_copies(self, node: str) -> int:
        return self.num_replicas[self.members[node]] if node in self.members else 1

    def _count_replicas(self) -> None:
        """From the metadata, the entries and the exits of each cluster, which have to agree."""
        found: Dict[str, Set[int]] = {}
        for node in self._view.graph_def.node:
            number = num_replicas(node)
            if number is None:
                continue
            cluster = self._marks.get(node.name) if node.op == METADATA else self._neighbour(node)
            if cluster is not None:
                found.setdefault(cluster, set()).add(number)
                self._ends.update({node.name: cluster} if node.op != METADATA else {})
            elif number > 1 and node.op != METADATA:
                self.problems.append(
                    f"{node.name} ({node.op}) is for {number} replicas, but no node beside it is "
                    f"marked with {CLUSTER}: export the graph without stripping attributes"
                )
            if list(attr_value(node, "padding_map").list.s):
                self.problems.append(
                    f"{node.name} pads inputs to maximum_shapes, and a TPU computes without the "
                    "padding: export with inputs of one shape"
                )
        for cluster, numbers in found.items():
            if len(numbers) > 1:
                self.problems.append(
                    f"cluster {cluster} has parts for {sorted(numbers)} replicas; expected one "
                    "number"
                )
            if max(numbers) > 1:
                self.num_replicas[cluster] = max(numbers)

    def _neighbour(self, node: Any) -> Optional[str]:
        """The cluster that an entry leads into, or that an exit leads out of."""
        if node.op == EXIT:
            return self._marks.get(Edge.parse(node.input[0]).node)
        if not hasattr(self, "_entered"):
            self._entered = {
                Edge.parse(text).node: self._marks[reader.name]
                for reader in self._view.graph_def.node
                if reader.name in self._marks
                for text in reader.input
            }
        return self._entered.get(node.name)

    def _find_members(self) -> None:
        """All marked nodes but those of which one is enough for all replicas."""
        for name, cluster in {**self._marks, **self._ends}.items():
            if cluster in self.num_replicas and not _is_handle(self._view.nodes[name]):
                self.members[name] = cluster
        self._share_loop_conditions()
        constants = [name for name in self.members if self._view.nodes[name].op == "Const"]
        for name in constants:  # those in a loop wait for a node of their replica's loop
            waits_for = (Edge.parse(text).node for text in self._view.nodes[name].input)
            if not any(node in self.members for node in waits_for):
                del self.members[name]

    def _share_loop_conditions(self) -> None:
        """Replicas that exchange tensors inside a loop go round together, by one LoopCond.

        On a TPU they would wait for each other for ever if one went round more often.
        TensorFlow runs no loop with two LoopCond.
        """
        nodes = self._view.nodes
        exchanges = [name for name in self.members if nodes[name].op in COLLECTIVES]
        stacks = frame_stacks(self._view.graph_def.node) if exchanges else {}
        self.common_frames = {frame for name in exchanges for frame in stacks[name]}
        for name in [name for name in self.members if nodes[name].op == "LoopCond"]:
            if self.common_frames.intersection(stacks.get(name, ())[-1:]):
                del self.members[name]

    def _check_readers(self) -> None:
        """Outside of its cluster, a node can only be read where it is the same on all replicas."""
        varying = self._varying()
        for node in self._view.graph_def.node:
            reader = None if node.name in self._ends else self.members.get(node.name)
            for edge in map(Edge.parse, node.input):
                cluster = self.members.get(edge.node)
                source = self._view.nodes[edge.node]
                if cluster in (None, reader) or edge.index == CONTROL or source.op == EXIT:
                    continue
                own_exit = node.op == EXIT and self._ends.get(node.name) == cluster
                if node.op == "LoopCond" or own_exit:
                    continue
                if edge.node in varying:
                    self.problems.append(
                        f"{node.name} reads {edge.node} inside a cluster of "
                        f"{self.num_replicas[str(cluster)]} replicas, which is another tensor on "
                        "each of them: name tensors that leave the cluster"
                    )

    def _varying(self) -> Set[str]:
        """Members that are not the same on all replicas."""
        readers: Dict[str, List[str]] = {}
        for name in self.members:
            for text in self._view.nodes[name].input:
                readers.setdefault(Edge.parse(text).node, []).append(name)
        found: Set[str] = set()
        waiting = [name for name in self.members if self._differs(self._view.nodes[name])]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += readers.get(name, ())
        return found

    def _differs(self, node: Any) -> bool:
        if node.op == ENTRY:
            return len(set(entry_sources(self._view, node))) > 1
        return node.op in OWN_OF_A_REPLICA

    def _check_functions(self) -> None:
        for name in self.members:
            node = self._view.nodes[name]
            inside = _ops_called(self._view, self._view.called_by(node)) & set(OWN_OF_A_REPLICA)
            if inside:
                self.problems.append(
                    f"{name} ({node.op}) calls a function with {', '.join(sorted(inside))} on "
                    f"{self.num_copies(name)} replicas: build the graph with "
                    "tf.disable_control_flow_v2(), or export it with one replica"
                )


def num_replicas(node: Any) -> Optional[int]:
    """For how many replicas an end or the metadata of a cluster is; None for other nodes."""
    if node.op == ENTRY:
        return int(node.attr["N"].i)
    if node.op in (EXIT, METADATA):
        return int(node.attr["num_replicas"].i)
    return None


def entry_sources(view: GraphView, entry: Any) -> List[str]:
    """The tensor that each replica gets of a TPUReplicatedInput.

    TPUStrategy mirrors a variable `v` as `v/replica_1`, ..., which are equal, and saved once:
    all replicas get `v`.
    """
    data = [text for text in entry.input if not text.startswith("^")]
    first = view.nodes[Edge.parse(data[0]).node]
    mirrors = [first.name] + [f"{first.name}/replica_{r}" for r in range(1, len(data))]
    mirrored = first.op == "VarHandleOp" and [Edge.parse(text).node for text in data] == mirrors
    if mirrored or entry.attr["is_mirrored_variable"].b or len(data) == 1:
        return data[:1] * int(entry.attr["N"].i)
    return data


def _is_handle(node: Any) -> bool:
    """Whether it names a variable, table or other thing that all replicas share."""
    if node.op in BOOKKEEPING:
        return True
    definition = op_def(node.op)
    if definition is None or any(not text.startswith("^") for text in node.input):
        return False
    kinds = [argument.type for argument in definition.output_arg]
    return tf.resource.as_datatype_enum in kinds or any(one.is_ref for one in definition.output_arg)


def _ops_called(view: GraphView, functions: Iterable[str]) -> Set[str]:
    """Ops of functions and of all that they call."""
    ops: Set[str] = set()
    seen: Set[str] = set()
    waiting = list(functions)
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            for node in view.functions[name].node_def:
                ops.add(node.op)
                waiting += view.called_by(node)
    return ops
