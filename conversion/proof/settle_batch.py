"""A written bundle -> inputs that its model runs with, and the batch sizes that it may run in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError
from batchinfer.signature import Signature
from batchinfer.tf1 import tf
from conversion.graphs.function_names import with_own_functions
from conversion.graphs.sparse_inputs import Fed
from conversion.graphs.tensors import Tensors, imported, read_signature
from conversion.lowering import Lowered
from conversion.proof import batch_probe
from conversion.proof.batch_probe import OPEN_ROWS, Batch, Rows, Run, short
from conversion.proof.integer_bounds import integer_bounds
from conversion.proof.open_batch import attempts
from conversion.proof.rows import fed
from conversion.proof.synthetic import Draw, draws, row_bytes, why_not

TABLES = ("Table", "TableV2", "TableV3")  # ends of the names of ops that hold a lookup table


@dataclass(frozen=True)
class Settled:
    """What was found out by running the model.

    Attributes:
        lowered: as it was, or with its batch opened.
        batch: the sizes it may run in, for the manifest.
        draw: inputs that it runs with; None when there are none.
        opened: what was opened of a fixed batch; "" when it is as it was.
    """

    lowered: Lowered
    batch: Batch
    draw: Optional[Draw]
    opened: str = ""


def settle_batch(folder: str, lowered: Lowered, given: Optional[Draw]) -> Settled:
    """Run the bundle's model in batches of several sizes and compositions.

    Args:
        folder: holds the SavedModel of `lowered`.
        given: the user's inputs; None makes some up.

    Raises:
        InputError: an output has not one row per input row.
    """
    signature = lowered.signature
    fixed = signature.fixed_batch_rows
    problem = "" if given else why_not(signature)
    if problem:
        return Settled(lowered, Batch(fixed, why="not probed: " + problem), given)
    rows = fixed or OPEN_ROWS
    bounds = integer_bounds(lowered.graph_def, signature)
    if rows * row_bytes(signature) > 4 * batch_probe.BYTES:
        why = (
            f"not probed: a batch of {rows} rows has {rows * row_bytes(signature)} bytes of inputs"
        )
        return Settled(lowered, Batch(fixed, why=why), given)
    with tf.Session(graph=tf.Graph()) as session, session.graph.as_default():
        tf.saved_model.loader.load(session, [tf.saved_model.SERVING], folder)
        run = _runs(session, signature)
        made_up = [] if why_not(signature) else list(draws(signature, rows, bounds))
        first, why = first_that_runs([_repeated(given, rows)] if given else made_up, run)
        if first is None:
            return Settled(lowered, Batch(fixed, why="not probed: " + why), given)
        second = _other_rows(run, first, given, signature, rows, bounds)
        settled = _settle(session, lowered, run, first, second)
    return replace(settled, draw=given or first)


def _settle(
    session: Any, lowered: Lowered, run: Run, first: Draw, second: Optional[Draw]
) -> Settled:
    signature, size = lowered.signature, row_bytes(lowered.signature)
    fixed = signature.fixed_batch_rows
    if second is None:
        why = "not probed: the reference has one row only, and no other can be made up"
        return Settled(lowered, Batch(fixed, why=why), first)
    rows = Rows(run, first, second)
    if fixed and all(spec.shape[0] is None for spec in signature.inputs):
        _refuse_constant_rows(run, rows)
    problem = batch_probe.dependence(run, rows)
    if problem:
        return Settled(lowered, Batch(fixed, False, why=problem), first)
    if rows.all_same():
        return Settled(lowered, Batch(fixed, why=batch_probe.SAME), first)
    if fixed is None:
        good, problem = batch_probe.other_sizes(run, rows, size)
        why = problem or "every size gives the same rows"
        return Settled(lowered, Batch(None, not problem, good, why), first)
    failed: List[str] = []
    independent: Optional[bool] = True
    for what, graph_def in attempts(lowered.graph_def, signature):
        good, problem, opened = _tried(session, lowered, graph_def, rows, size, len(failed))
        if not problem:
            why = f"traced with {fixed} rows; the same rows in other sizes with {what} opened"
            return Settled(opened, Batch(None, True, good, why), first, what)
        # Later attempts change more than the inputs, and may give other values by their own fault.
        if not failed and fixed > 1 and batch_probe.gave_other_values(problem):
            independent = None
        failed.append(f"with {what} opened: {problem}")
    return Settled(lowered, Batch(fixed, independent, (fixed,), "; ".join(failed)), first)


def _refuse_constant_rows(run: Run, rows: Rows) -> None:
    """Refuse outputs that have as many rows as they have, however many the batch has.

    Where a batch of another size does not run at all, the graph has its batch baked in.
    """
    more = rows.batch_rows + 1
    try:
        outputs = run(rows.inputs(range(more)))
    except (tf.errors.OpError, ValueError):
        return
    batch_probe.refuse_other_rows(outputs, more)


def opened_like(lowered: Lowered, what: str) -> Lowered:
    """Another lowering of the same source with the same opened; itself for ""."""
    for found, graph_def in attempts(lowered.graph_def, lowered.signature) if what else ():
        if found == what:
            return replace(lowered, graph_def=graph_def, signature=_signature(lowered, graph_def))
    return lowered


def _tried(
    session: Any, lowered: Lowered, graph_def: Any, rows: Rows, size: int, number: int
) -> Tuple[Tuple[int, ...], str, Lowered]:
    """Probe a graph beside the one that is loaded, with the same variables and tables.

    Returns:
        The sizes that gave the same rows, what was wrong, and the graph as what to write.
    """
    try:
        opened = replace(lowered, graph_def=graph_def, signature=_signature(lowered, graph_def))
        scope = f"attempt_{number}"
        beside = with_own_functions(graph_def, scope)
        tf.import_graph_def(beside, _shared(session.graph, beside), name=scope)
        run = _runs(session, lowered.signature, scope + "/")
        good, problem = batch_probe.other_sizes(run, rows, size)
        return good, problem, opened
    except (InputError, ValueError, TypeError, tf.errors.OpError) as error:
        return (), short(error), lowered


def _signature(lowered: Lowered, graph_def: Any) -> Signature:
    """With an open batch everywhere.

    Raises:
        InputError: the batch is still fixed somewhere.
    """
    before = lowered.signature
    chosen = Tensors(
        {spec.name: spec.tensor for spec in before.inputs if spec.lengths is None},
        {spec.name: spec.tensor for spec in before.outputs},
        {spec.name: tf.TensorShape([None, *spec.row_shape]) for spec in before.outputs},
        ragged={
            spec.name: Fed(spec.tensor, spec.lengths, (None, spec.shape[1]))
            for spec in before.inputs
            if spec.lengths is not None
        },
    )
    found, _ = read_signature(imported(graph_def, "the graph with an open batch"), chosen)
    for spec in found.inputs + found.outputs:
        if spec.shape[0] is not None:
            raise InputError(f"{spec} still has a fixed number of rows")
    return found


def _shared(graph: Any, graph_def: Any) -> Dict[str, Any]:
    """The variables and tables of the loaded graph, in the place of an imported one's own."""
    return {
        node.name + ":0": graph.get_tensor_by_name(node.name + ":0")
        for node in graph_def.node
        if node.op == "VarHandleOp" or (node.op.endswith(TABLES) and not node.input)
    }


def _runs(session: Any, signature: Signature, scope: str = "") -> Run:
    """The model between the tensors of a signature, as a function."""

    def run(inputs: Mapping[str, Any]) -> Dict[str, Any]:
        fetches = {spec.name: scope + spec.tensor for spec in signature.outputs}
        feeds = {
            scope + tensor: array
            for spec in signature.inputs
            for tensor, array in fed(spec, inputs[spec.name]).items()
        }
        return dict(session.run(fetches, feeds))

    return run


def first_that_runs(candidates: List[Draw], run: Run) -> Tuple[Optional[Draw], str]:
    """The first draw whose outputs tell rows apart; else the first that runs; else why not."""
    runs: Optional[Draw] = None
    why = "no inputs"
    for draw in candidates:
        try:
            outputs = run(draw.arrays)
        except (tf.errors.OpError, ValueError) as error:
            why = "the model cannot be run with them: " + short(error)
            continue
        if not flat_outputs(outputs):
            return draw, ""
        runs = runs or draw
    return runs, why


def flat_outputs(outputs: Mapping[str, Any]) -> List[str]:
    """Outputs that say the same of every row, or hold values that are not finite.

    One class or flag for every row is no wonder where the scores behind it differ: such outputs
    are only named where no floats tell rows apart.
    """
    arrays = {name: np.asarray(value) for name, value in sorted(outputs.items())}
    flat = [name for name, array in arrays.items() if _is_flat(array)]
    floats = {name for name, array in arrays.items() if array.dtype.kind == "f"}
    return [name for name in flat if name in floats] if floats - set(flat) else flat


def _is_flat(array: Any) -> bool:
    same = array.ndim > 0 and len(array) > 1 and bool(np.all(array == array[:1]))
    return same or (array.dtype.kind == "f" and not bool(np.isfinite(array).all()))


def _repeated(draw: Draw, rows: int) -> Draw:
    """A batch of the user's rows, from the first on, again from the first where they end."""
    return Draw(draw.taken(np.arange(rows) % draw.rows), draw.about)


def _other_rows(
    run: Run,
    first: Draw,
    given: Optional[Draw],
    signature: Signature,
    rows: int,
    bounds: Mapping[str, int],
) -> Optional[Draw]:
    """A second batch, of the user's further rows or made up; None when there is none."""
    candidates: List[Draw] = []
    if given is not None and given.rows > 1:
        candidates.append(Draw(given.taken((np.arange(rows) + given.rows // 2) % given.rows)))
    elif not why_not(signature):
        candidates = list(_drawn_again(signature, rows, bounds))
    return first_that_runs(candidates, run)[0]


def _drawn_again(signature: Signature, rows: int, bounds: Mapping[str, int]) -> Iterator[Draw]:
    return draws(signature, rows, bounds, seed=batch_probe.SECOND_SEED)
