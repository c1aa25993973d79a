"""A lowered model -> the files of its SavedModel, and what the production scorer makes of them."""

from __future__ import annotations

import os
from typing import Any, Dict, Mapping

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError
from batchinfer.scorer import DEFAULT_BATCH_ROWS, Scorer
from batchinfer.signature import Signature
from batchinfer.tf1 import tf
from conversion import saved_model
from conversion.graphs.tensors import imported
from conversion.lowering import Lowered
from conversion.source import Source
from conversion.weights.variable_copy import copy_variables

VARIABLES = os.path.join("variables", "variables")


def write_model(folder: str, source: Source, lowered: Lowered) -> None:
    """The checkpoint and the SavedModel around the clean graph."""
    copy_variables(lowered.checkpoint, lowered.mapping.assignments, os.path.join(folder, VARIABLES))
    write_graph(folder, source, lowered)


def write_graph(folder: str, source: Source, lowered: Lowered) -> None:
    """The SavedModel alone, over one that may be there."""
    graph = imported(lowered.graph_def, source.path)
    saved_model.write_saved_model(
        folder, graph, lowered.signature, lowered.initialisers, lowered.assets
    )


def score_folder(folder: str, signature: Signature, inputs: Mapping[str, Any]) -> Dict[str, Any]:
    """Every row through the production scorer.

    Args:
        folder: a bundle that has no manifest yet.

    Raises:
        InputError: the model refuses the inputs.
    """
    bundle = Bundle(folder, {"signature": signature.to_json()})
    rows = len(next(iter(inputs.values())))
    batch_rows = None if signature.fixed_batch_rows else min(rows, DEFAULT_BATCH_ROWS)
    scorer = Scorer.restore(bundle, batch_rows)
    try:
        return scorer.score(inputs)
    except tf.errors.OpError as error:
        raise InputError(f"the bundle cannot be run with these inputs: {error}") from error
    finally:
        scorer.close()
