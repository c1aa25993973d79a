"""What a bundle has to reproduce: the user's outputs, or what the source itself computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.code.plain_run import reference_outputs
from conversion.graphs.tensors import choose_tensors
from conversion.lowering import Lowered, Request
from conversion.options import ModelCode
from conversion.proof.arithmetic import arithmetic_of
from conversion.proof.batch_probe import short
from conversion.proof.reference_file import Arrays
from conversion.proof.source_graph import SourceGraph
from conversion.proof.synthetic import Draw
from conversion.source import KINDS, Source

BY_CODE = ("model_fn", "build", "keras")  # kinds whose graph is the code's own for a plain machine


@dataclass(frozen=True)
class Reference:
    """Outputs to reproduce, and where they come from.

    Attributes:
        inputs, outputs: arrays by name, the same rows in each.
        kind: "user file", "model code run plainly" or "source graph".
        how: what was run, and how.
        drawn: where the inputs come from.
        arithmetic: "float32" or "bfloat16"; of a file, what its source computes in.
        runtime: what computed the outputs.
    """

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    kind: str
    how: str
    drawn: Mapping[str, Any]
    arithmetic: str
    runtime: str

    def about(self) -> Dict[str, Any]:
        """For the manifest and the report."""
        return {
            "kind": self.kind,
            "how": self.how,
            "inputs": dict(self.drawn),
            "arithmetic": self.arithmetic,
            "runtime": self.runtime,
        }

    def sentence(self) -> str:
        drawn = self.drawn
        inputs = f"{drawn['rows']} rows of the user's inputs"
        if drawn["kind"] == "synthetic":
            inputs = (
                f"{drawn['rows']} made-up rows (floats {drawn['floats']}, seed {drawn['seed']})"
            )
        return f"{self.kind} ({self.how}; {self.arithmetic}, {self.runtime}), {inputs}"


class NoReference(Exception):
    """The source cannot compute a reference here; the message says why."""


def from_file(given: Arrays, draw: Draw, path: str, computed_in: str) -> Reference:
    """The user's own outputs.

    Args:
        computed_in: what the source computes in, and so most likely what computed them.
    """
    return Reference(
        draw.arrays, given.outputs, "user file", path, draw.about, computed_in, "not known"
    )


def from_code(code: ModelCode, checkpoint: str, draw: Draw) -> Reference:
    """Build the model once more, plainly, and run it: no surgery and no mapping of ours in it.

    Raises:
        NoReference: it does not run on this machine.
    """
    try:
        outputs = reference_outputs(code, checkpoint, draw.arrays)
    except InputError as error:
        raise NoReference(str(error)) from error
    return Reference(
        draw.arrays,
        outputs,
        "model code run plainly",
        "built again without a TPU, restored by the model's own saver",
        draw.about,
        "float32",
        f"TensorFlow {tf.__version__} on CPU",
    )


def from_source(
    source: Source,
    lowered: Lowered,
    request: Request,
    draw: Draw,
    converted: str,
    plain: bool,
    widen: bool,
) -> Reference:
    """Run the source itself; see `SourceGraph` for the arguments.

    Args:
        lowered: as it was before its batch was opened.

    Raises:
        NoReference: it does not run on this machine.
    """
    chosen = choose_tensors(source, request.inputs, request.outputs, request.signature)
    graph: Optional[SourceGraph] = None
    try:
        graph = SourceGraph(source, lowered, chosen, converted, plain, widen)
        outputs = graph.run(draw.arrays, lowered.signature.fixed_batch_rows)
    except (tf.errors.OpError, ValueError, KeyError, TypeError) as error:
        raise NoReference(f"the {KINDS[source.kind]} does not run here: {short(error)}") from error
    finally:
        if graph is not None:
            graph.close()
    computed_in = arithmetic_of(source.meta_graph.graph_def, chosen.outputs.values())
    return Reference(
        draw.arrays,
        outputs,
        "model code run plainly" if source.kind in BY_CODE else "source graph",
        f"{KINDS[source.kind]}, {graph.how}",
        draw.about,
        "float32" if widen else computed_in,
        f"TensorFlow {tf.__version__} on CPU",
    )
