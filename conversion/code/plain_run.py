"""Model code run as its owner would run it without a TPU: what a bundle of it has to reproduce.

Nothing of the conversion is in the way: variables of the kind that the code makes, restored by the
model's own saver, no surgery, no mapping of names.
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, Mapping, Set

import numpy as np

from batchinfer.batch import pad
from batchinfer.errors import InputError
from batchinfer.ragged import Ragged
from batchinfer.tf1 import tf
from conversion.code.code_model import Built, build_model
from conversion.options import ModelCode
from conversion.tf_internals import without_bfloat16

DEFAULT_ROWS = 256  # of a run, where the batch is open


def reference_outputs(
    code: ModelCode, checkpoint: str, inputs: Mapping[str, Any]
) -> Dict[str, Any]:
    """Build the model plainly, restore the checkpoint, and run all rows on the CPU.

    Variables are restored by the scaffold's saver where the model has one, else by a
    tf.train.Saver over those that the outputs read. Ops that compute in bfloat16 do so here too.

    Args:
        code: of `--model-fn` or `--build`.
        checkpoint: prefix.
        inputs: by the names of the signature: arrays with a row each, or `Ragged` rows for a
            feature that is a SparseTensor; those that no output needs may be missing.

    Returns:
        Arrays by output name, a row for each input row.

    Raises:
        InputError: the code cannot be built, or what it builds does not run or restore here.
    """
    built = build_model(code, checkpoint, use_resource=False)
    reached = _reached(output.op for output in built.outputs.values())
    _refuse_wrong_kernels(reached)
    config = tf.ConfigProto(allow_soft_placement=True, device_count={"GPU": 0})
    with built.graph.as_default(), tf.Session(config=config) as session:
        try:
            session.run([tf.local_variables_initializer(), tf.tables_initializer()])
            _restore(built, reached, session, checkpoint)
            return _run(built, reached, session, inputs)
        except (tf.errors.OpError, ValueError) as error:
            text = str(getattr(error, "message", error)).splitlines()[0]
            raise InputError(f"the model does not run here without a TPU: {text}") from error


def _reached(ops: Iterable[Any]) -> Set[Any]:
    """The operations that these need, with themselves."""
    found: Set[Any] = set()
    waiting: List[Any] = list(ops)
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    return found


def _refuse_wrong_kernels(reached: Iterable[Any]) -> None:
    """TF 1.15's kernels of depthwise convolutions ignore their dilations."""
    wrong = sorted(
        op.name
        for op in reached
        if op.type.startswith("DepthwiseConv2dNative") and max(op.get_attr("dilations")) > 1
    )
    if wrong:
        raise InputError(
            f"TensorFlow {tf.__version__} computes {', '.join(wrong)} without its dilations, so "
            "that this run would be no reference; give one with --reference"
        )


def _restore(built: Built, reached: Set[Any], session: Any, checkpoint: str) -> None:
    needed = [one for one in tf.global_variables() if one.op in reached]
    if built.saver is not None:
        built.saver.restore(session, checkpoint)
    elif needed:
        tf.train.Saver(needed).restore(session, checkpoint)


def _run(
    built: Built, reached: Set[Any], session: Any, inputs: Mapping[str, Any]
) -> Dict[str, Any]:
    """Batch by batch, the last one padded to the size that the graph asks for."""
    used = {name: one for name, one in built.inputs.items() if _op(one) in reached}
    missing = sorted(set(used) - set(inputs))
    if missing:
        raise InputError(f"expected inputs {', '.join(sorted(used))}; missing {', '.join(missing)}")
    num_rows = len(inputs[next(iter(used))])
    size = built.batch_rows or min(num_rows, DEFAULT_ROWS)
    parts = []
    for start in range(0, num_rows, size):
        kept = min(size, num_rows - start)
        feeds = {
            tensor: _fed(pad(inputs[name][start : start + size], built.batch_rows or kept), tensor)
            for name, tensor in used.items()
        }
        found = session.run(dict(built.outputs), feeds)
        parts.append({name: without_bfloat16(array[:kept]) for name, array in found.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _op(placeholder: Any) -> Any:
    sparse = isinstance(placeholder, tf.SparseTensor)
    return placeholder.values.op if sparse else placeholder.op


def _fed(rows: Any, placeholder: Any) -> Any:
    """What is fed: the rows, or a SparseTensorValue of them."""
    if not isinstance(placeholder, tf.SparseTensor):
        return rows
    if not isinstance(rows, Ragged):
        raise InputError(f"{placeholder.values.name}: expected Ragged rows of a SparseTensor")
    width = int(rows.lengths.max(initial=0))
    places = np.argwhere(np.arange(width) < rows.lengths[:, np.newaxis])
    return tf.SparseTensorValue(places, rows.own_values, [len(rows), width])
