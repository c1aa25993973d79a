"""Exchanges between replicas -> sums, splits and concatenations of the replicas' copies."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graphs.clusters import COLLECTIVES
from conversion.graphs.constants import constant_value
from conversion.graphs.functions import free_name
from conversion.graphs.graph import Edge, GraphView, with_nodes
from conversion.surgery.replicas import NUM_REPLICAS, ORIGIN, REPLICA
from conversion.surgery.rewrite import Rewrite, become_identity


def cross_replica(view: GraphView) -> Tuple[Any, int]:
    """As the documentation of TF 1.15's tpu_ops says, for each group of replicas.

    An op stays, for the inventory to refuse, where its groups are not known, or are not those of
    the replicas that the graph has: eight cores named in a graph for one are no guess to make.
    """
    exchange = _Exchange(view)
    nodes = [made for node in view.graph_def.node for made in exchange.replaced(node)]
    return (
        (with_nodes(view.graph_def, nodes), exchange.count)
        if exchange.count
        else (view.graph_def, 0)
    )


class _Exchange:
    """The ops of one graph.

    Attributes:
        count: ops replaced.
    """

    def __init__(self, view: GraphView) -> None:
        self.count = 0
        self._view = view
        self._taken = set(view.nodes)
        self._copies: Dict[bytes, Dict[int, Any]] = {}
        for node in view.graph_def.node:
            if node.op in COLLECTIVES and ORIGIN in node.attr:
                origin = node.attr[ORIGIN].s
                self._copies.setdefault(origin, {})[node.attr[REPLICA].i] = node

    def replaced(self, node: Any) -> List[Any]:
        """The nodes that give what an op gave, the last of its name."""
        made: Optional[List[Any]] = None
        if node.op == "XlaReplicaId":
            made = [_constant(node.name, node.attr[REPLICA].i, _control(node))]
        elif node.op in COLLECTIVES:
            made = self._collective(node)
        self.count += made is not None
        return [node] if made is None else made

    def _collective(self, node: Any) -> Optional[List[Any]]:
        number = node.attr[NUM_REPLICAS].i or 1
        table = constant_value(self._view, Edge.parse(node.input[1]))
        if table is None:
            return None
        if node.op == "CollectivePermute":
            return self._permuted(node, number, table.reshape(-1, 2).tolist())
        groups = table.tolist() if table.size else [list(range(number))]
        if table.size and (table.ndim != 2 or sorted(table.flat) != list(range(number))):
            return None
        group = next(one for one in groups if node.attr[REPLICA].i in one)
        return (
            self._summed(node, group)
            if node.op == "CrossReplicaSum"
            else self._all_to_all(node, group)
        )

    def _inputs(self, node: Any, group: List[int]) -> List[str]:
        """What each replica of a group gives to the exchange."""
        copies = self._copies.get(node.attr[ORIGIN].s, {0: node})
        return [copies[replica].input[0] for replica in group]

    def _summed(self, node: Any, group: List[int]) -> List[Any]:
        made = _copy(node)
        if len(group) == 1:
            become_identity(made, node.attr["T"].type)
            return [made]
        made.op = "AddN"
        made.attr["N"].i = len(group)
        made.input[:] = self._inputs(node, group) + _control(node)
        return [made]

    def _all_to_all(self, node: Any, group: List[int]) -> Optional[List[Any]]:
        """Block j of every replica of the group goes to the j-th of them."""
        if node.attr["split_count"].i != len(group):
            return None
        position = group.index(node.attr[REPLICA].i)
        nodes: List[Any] = []
        blocks = []
        for index, source in enumerate(self._inputs(node, group)):
            axis = self._axis(nodes, node, f"split_dimension_{index}", "split_dimension", source)
            split = self._new(node, f"split_{index}", "Split", [axis, source])
            split.attr["num_split"].i = len(group)
            nodes.append(split)
            blocks.append(str(Edge(split.name, position)))
        axis = self._axis(nodes, node, "concat_dimension", "concat_dimension", node.input[0])
        made = self._new(node, None, "ConcatV2", blocks + [axis] + _control(node))
        made.attr["N"].i = len(group)
        made.attr["Tidx"].type = tf.int32.as_datatype_enum
        return nodes + [made]

    def _permuted(self, node: Any, number: int, pairs: List[List[int]]) -> Optional[List[Any]]:
        """The tensor of the replica that sends to this one, or zeros where none does."""
        sources, targets = [one for one, _ in pairs], [one for _, one in pairs]
        unknown = [one for one in sources + targets if not 0 <= one < number]
        if unknown or len(set(targets)) < len(targets) or len(set(sources)) < len(sources):
            return None
        if node.attr[REPLICA].i not in targets:
            return [self._new(node, None, "ZerosLike", [node.input[0]] + _control(node))]
        source = sources[targets.index(node.attr[REPLICA].i)]
        return [self._new(node, None, "Identity", self._inputs(node, [source]) + _control(node))]

    def _axis(self, nodes: List[Any], node: Any, name: str, attr: str, reader: str) -> str:
        """A constant in the frame of the tensor that it is used with."""
        free = free_name(f"{node.name}/{name}", self._taken)
        edge = Edge.parse(reader)
        nodes.append(_constant(free, node.attr[attr].i, ["^" + edge.node]))
        return free

    def _new(self, node: Any, name: Optional[str], op: str, inputs: List[str]) -> Any:
        free = free_name(f"{node.name}/{name}", self._taken) if name else node.name
        made = type(node)(name=free, op=op, input=inputs, device=node.device)
        made.attr["T"].type = node.attr["T"].type
        return made


def _constant(name: str, value: int, control: List[str]) -> Any:
    made = tf.NodeDef(name=name, op="Const", input=control)
    made.attr["dtype"].type = tf.int32.as_datatype_enum
    made.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return made


def _control(node: Any) -> List[str]:
    return [text for text in node.input if text.startswith("^")]


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made


REWRITE = Rewrite(
    name="cross_replica",
    does="takes sums and other exchanges between replicas from the replicas' copies",
    run=cross_replica,
    fates={
        "CrossReplicaSum": "replaced by a sum over the group's copies",
        "AllToAll": "replaced by blocks of the group's copies",
        "CollectivePermute": "replaced by the copy that sends, or zeros",
        "XlaReplicaId": "replaced by the number of the copy",
    },
    sees="bodies",
)
