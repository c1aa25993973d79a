"""Placeholders with a default that nothing feeds -> their default."""

from __future__ import annotations

from typing import Any, Iterable

from conversion.graphs.graph import changed
from conversion.surgery.rewrite import become_identity


def with_settled_defaults(graph_def: Any, fed: Iterable[str]) -> Any:
    """A scorer feeds the model's inputs and nothing else: all others are what they default to.

    Such as the `keras_learning_phase`, or an `is_training` that is no input of the signature.

    Args:
        fed: names of the nodes that are inputs.
    """
    inputs = set(fed)

    def change(node: Any) -> bool:
        if node.op != "PlaceholderWithDefault" or node.name in inputs:
            return False
        become_identity(node, node.attr["dtype"].type)
        return True

    return changed(graph_def, change)[0]
