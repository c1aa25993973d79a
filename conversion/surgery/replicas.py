"""Clusters of several replicas -> their nodes once per replica."""

from __future__ import annotations

from typing import Any, Dict, List, Set, Tuple

from batchinfer.errors import UnsupportedOpsError
from conversion.graphs.clusters import ENTRY, EXIT, Clusters, entry_sources
from conversion.graphs.frames import ENTERS
from conversion.graphs.functions import free_name
from conversion.graphs.graph import CONTROL, Edge, GraphView, with_nodes
from conversion.surgery.rewrite import Rewrite, become_identity

# Attributes of copies, for the rewrites that follow: which replica, of which node, of how many.
REPLICA, ORIGIN, NUM_REPLICAS = "_tpu_replica", "_tpu_replica_of", "_tpu_num_replicas"


def replicas(view: GraphView) -> Tuple[Any, int]:
    """Copy what a TPU runs on N cores N times: replica 0 alone is another function.

    Replica 0 keeps its names. Replica r reads input r of each TPUReplicatedInput, and gives
    output r of each TPUReplicatedOutput. What holds a variable or table is not copied, nor a
    constant. The copies of a loop are loops of their own, except where replicas exchange tensors
    in it: then all go round together, as on a TPU.

    Raises:
        UnsupportedOpsError: a cluster that cannot be copied exactly, with every reason.
    """
    clusters = Clusters(view)
    if clusters.problems:
        raise UnsupportedOpsError(
            f"{len(clusters.problems)} thing(s) of what a TPU runs on several cores cannot be "
            "converted exactly:\n  " + "\n  ".join(clusters.problems) + "\nNothing was written."
        )
    if not clusters.members:
        return view.graph_def, 0
    copier = _Copier(view, clusters)
    nodes = [copy for node in view.graph_def.node for copy in copier.copies(node)]
    return with_nodes(view.graph_def, nodes), len(clusters.members)


class _Copier:
    """Nodes of a graph -> their copies."""

    def __init__(self, view: GraphView, clusters: Clusters) -> None:
        self._view, self._clusters = view, clusters
        self._names: Dict[str, List[str]] = {}
        taken = set(view.nodes)
        for name in clusters.members:
            others = range(1, clusters.num_copies(name))
            free = [free_name(f"{name}/replica_{replica}", taken) for replica in others]
            self._names[name] = [name] + free
        self._common_frames = _common_frames(view, clusters)

    def copies(self, node: Any) -> List[Any]:
        """One node per replica, or just one where it is outside of all clusters."""
        if node.name not in self._names:
            made = self._copy(node)
            made.input[:] = self._inputs(node, node.input, 0)
            return [made]
        return [self._member(node, replica) for replica in range(len(self._names[node.name]))]

    def _copy(self, node: Any) -> Any:
        made = type(node)()
        made.CopyFrom(node)
        return made

    def _member(self, node: Any, replica: int) -> Any:
        made = self._copy(node)
        made.name = self._names[node.name][replica]
        if node.op == ENTRY:
            control = [text for text in node.input if text.startswith("^")]
            source = entry_sources(self._view, node)[replica]
            made.input[:] = self._inputs(node, [source] + control, replica)
        else:
            made.input[:] = self._inputs(node, node.input, replica)
        if node.op in (ENTRY, EXIT):
            become_identity(made, node.attr["T"].type)
        made.attr[REPLICA].i = replica
        made.attr[ORIGIN].s = node.name.encode()
        made.attr[NUM_REPLICAS].i = len(self._names[node.name])
        if node.op in ENTERS and replica and node.attr["frame_name"].s not in self._common_frames:
            made.attr["frame_name"].s += f"/replica_{replica}".encode()
        if "_class" in made.attr:
            places = made.attr["_class"].list
            places.s[:] = [self._place(place, node, replica) for place in places.s]
        return made

    def _inputs(self, node: Any, texts: Any, replica: int) -> List[str]:
        """What a copy reads: nodes of its own replica, and all replicas where it waits outside."""
        data: List[str] = []
        control: Dict[str, None] = {}  # in order
        for edge in map(Edge.parse, texts):
            names = self._names.get(edge.node, [edge.node])
            leaves = len(names) > 1 and self._view.nodes[edge.node].op == EXIT
            same = self._same_cluster(node, edge.node) and not leaves
            if edge.index == CONTROL:
                awaited = [names[replica]] if same else names
                control.update(dict.fromkeys("^" + name for name in awaited))
            elif leaves:
                data.append(names[edge.index])
            else:
                data.append(str(Edge(names[replica] if same else names[0], edge.index)))
        return data + list(control)

    def _same_cluster(self, node: Any, other: str) -> bool:
        members = self._clusters.members
        enters = node.op == ENTRY  # reads from outside
        return not enters and other in members and members.get(node.name) == members[other]

    def _place(self, place: bytes, node: Any, replica: int) -> bytes:
        name = place[len(b"loc:@") :].decode()
        if not self._same_cluster(node, name):
            return place
        return b"loc:@" + self._names[name][replica].encode()


def _common_frames(view: GraphView, clusters: Clusters) -> Set[bytes]:
    """Loops that all replicas go round together: around a cluster, or with exchanges inside."""
    around = {
        node.attr["frame_name"].s
        for node in view.graph_def.node
        if node.op in ENTERS and node.name not in clusters.members
    }
    return around | {frame.encode() for frame in clusters.common_frames}


REWRITE = Rewrite(
    name="replicas",
    does="copies what several TPU cores run, once per core, so that all outputs come out",
    run=replicas,
    fates={ENTRY: "replaced by Identity", EXIT: "replaced by Identity"},
    sees="bodies",
)
