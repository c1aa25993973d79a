"""CrossReplicaSum over groups of one replica -> Identity."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from batchinfer.tf1 import tf
from conversion.graph import Edge, GraphView, changed
from conversion.surgery.rewrite import Rewrite, become_identity


def cross_replica(view: GraphView) -> Tuple[Any, int]:
    """A sum over one replica is that replica's value; larger groups stay and are refused."""

    def change(node: Any) -> bool:
        if node.op != "CrossReplicaSum" or replicas_per_group(view, node) != 1:
            return False
        become_identity(node, node.attr["T"].type)
        return True

    return changed(view.graph_def, change)


def replicas_per_group(view: GraphView, node: Any) -> Optional[int]:
    """Second dimension of the constant group assignment; None when it is not a constant."""
    source = view.nodes.get(Edge.parse(node.input[1]).node)
    if source is None or source.op != "Const":
        return None
    groups = tf.make_ndarray(source.attr["value"].tensor)
    return int(groups.shape[-1]) if groups.ndim == 2 else None


REWRITE = Rewrite(
    name="cross_replica",
    does="takes out sums over a single replica",
    run=cross_replica,
    fates={"CrossReplicaSum": "replaced by Identity"},
)
