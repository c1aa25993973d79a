"""The float32 model of the same source beside a float16 one: what half precision alone changes."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any, Dict, Mapping, Optional, Tuple

from conversion.lowering import Request, lower
from conversion.model_files import score_folder, write_graph, write_model
from conversion.proof import parity
from conversion.proof.settle_batch import Settled, settle_batch
from conversion.proof.synthetic import Draw
from conversion.proof.tolerance import TOLERANCES, Tolerance
from conversion.source import Source


def settle(
    folder: str, source: Source, request: Request, draw: Optional[Draw]
) -> Tuple[Settled, Dict[str, Any]]:
    """Build the model again in float32, probe its batch, and score it.

    The batch is probed here because in half precision rounding would hide that rows differ.

    Args:
        folder: of the float16 model; the twin lies beside it for as long as this takes.

    Returns:
        What was found out, and the twin's outputs for the draw; {} without a draw.
    """
    lowered = lower(source, replace(request, precision="float32"))
    parent = os.path.dirname(os.path.abspath(folder))
    with tempfile.TemporaryDirectory(prefix=".float32-", dir=parent) as twin:
        write_model(twin, source, lowered)
        settled = settle_batch(twin, lowered, draw)
        if settled.draw is None:
            return settled, {}
        if settled.opened:
            write_graph(twin, source, settled.lowered)
        return settled, score_folder(twin, settled.lowered.signature, settled.draw.arrays)


def report(
    found: Mapping[str, Any], exact: Mapping[str, Any], asked: Optional[Tolerance]
) -> parity.ParityReport:
    """The float16 bundle's outputs compared with its float32 twin's."""
    tolerance = asked or TOLERANCES["float16"]
    why = "--atol and --rtol" if asked else "default for float16"
    compared = parity.compare(found, exact, tolerance)
    title = "compared with the float32 bundle of the same source, on the same inputs"
    return replace(compared, about={"tolerance_why": why}, title=title)
