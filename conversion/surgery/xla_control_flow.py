"""XlaIf, XlaWhile and XlaClusterOutput -> If, While and Identity."""

from __future__ import annotations

from typing import Any, Tuple

from conversion.graphs.graph import GraphView, changed
from conversion.surgery.rewrite import Rewrite, become_identity

SAME_AS = {"XlaIf": "If", "XlaWhile": "While"}  # attributes, inputs and outputs are the same


def xla_control_flow(view: GraphView) -> Tuple[Any, int]:
    """XLA compiles these; TensorFlow has kernels for their equals, which call the same functions.

    What `xla.compile` marks for compilation (`_xla_compile_id`) is computed as it is.
    """

    def change(node: Any) -> bool:
        if node.op == "XlaClusterOutput":
            become_identity(node, node.attr["T"].type)
            return True
        if node.op in SAME_AS:
            node.op = SAME_AS[node.op]
            return True
        return False

    return changed(view.graph_def, change)


REWRITE = Rewrite(
    name="xla_control_flow",
    does="turns XLA's branches, loops and outputs into TensorFlow's own",
    run=xla_control_flow,
    fates={**{op: f"replaced by {other}" for op, other in SAME_AS.items()},
           "XlaClusterOutput": "replaced by Identity"},
    sees="flat",
)  # fmt: skip
