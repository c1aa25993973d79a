"""GuaranteeConst -> Identity."""

from __future__ import annotations

from typing import Any, Tuple

from conversion.graphs.graph import GraphView, changed
from conversion.surgery.rewrite import Rewrite, become_identity


def guarantee_const(view: GraphView) -> Tuple[Any, int]:
    """It has a CPU kernel only: on a GPU the weights would be copied to the host each step."""

    def change(node: Any) -> bool:
        if node.op != "GuaranteeConst":
            return False
        become_identity(node, node.attr["T"].type)
        return True

    return changed(view.graph_def, change)


REWRITE = Rewrite(
    name="guarantee_const",
    does="turns the promise that weights are constant into an identity that a GPU can run",
    run=guarantee_const,
    sees="flat",
    fates={"GuaranteeConst": "replaced by Identity"},
)
