"""TPUReplicatedInput and TPUReplicatedOutput of one replica -> Identity."""

from __future__ import annotations

from typing import Any, Tuple

from conversion.graphs.graph import GraphView, changed
from conversion.surgery.rewrite import Rewrite, become_identity

OPS = ("TPUReplicatedInput", "TPUReplicatedOutput")


def replicated_io(view: GraphView) -> Tuple[Any, int]:
    """With one replica both ops hand their tensor on.

    With several they stay, for the inventory to refuse: replica 0 alone is another function.
    """

    def change(node: Any) -> bool:
        if node.op not in OPS or node.attr["num_replicas" if "Output" in node.op else "N"].i != 1:
            return False
        become_identity(node, node.attr["T"].type)
        return True

    return changed(view.graph_def, change)


REWRITE = Rewrite(
    name="replicated_io",
    does="turns the entry and exit of a cluster of one replica into identities",
    run=replicated_io,
    sees="flat",
    fates=dict.fromkeys(OPS, "replaced by Identity"),
)
