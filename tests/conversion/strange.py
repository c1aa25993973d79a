"""A function of tensors -> a MetaGraph and its checkpoint -> a bundle, beside its plain run."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Mapping, Optional

import numpy as np

from batchinfer.bundle import Bundle
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions

ROWS = 4
X = np.random.RandomState(5).normal(size=(ROWS, 6, 6, 3)).astype(np.float32)

Compute = Callable[..., Mapping[str, Any]]


def run(
    compute: Compute, folder: Any, inputs: Optional[Mapping[str, Any]] = None
) -> Dict[str, Any]:
    """What `compute` gives for the inputs with the variables that `saved` wrote to the folder.

    Args:
        inputs: by name; X as x when left out.
    """
    inputs = inputs or {"x": X}
    with tf.Graph().as_default(), tf.Session() as session:
        fed, outputs = _built(compute, inputs, ROWS, tpu=False)
        session.run(tf.tables_initializer())
        tf.train.get_or_create_global_step()
        tf.train.Saver().restore(session, os.path.join(str(folder), "model.ckpt"))
        return session.run(outputs, {fed[name]: inputs[name] for name in fed})


def bundled(
    compute: Compute,
    folder: Any,
    tpu: bool = True,
    num_rows: Optional[int] = ROWS,
    inputs: Optional[Mapping[str, Any]] = None,
    **changes: Any,
) -> Dict[str, Any]:
    """What the bundle gives that is converted from a MetaGraph of `compute`.

    Args:
        tpu: under `tpu.rewrite`; False leaves the function as it is.
        num_rows: of the placeholders; None leaves the batch open.
        changes: of the `ConvertOptions`.
    """
    inputs = inputs or {"x": X}
    convert(ConvertOptions(**{**saved(compute, folder, tpu, num_rows, inputs), **changes}))
    bundle = Bundle.open(os.path.join(str(folder), "bundle"))
    scorer = Scorer.restore(bundle, ROWS)
    try:
        return scorer.score({spec.name: inputs[spec.name] for spec in bundle.signature.inputs})
    finally:
        scorer.close()


def saved(
    compute: Compute,
    folder: Any,
    tpu: bool = True,
    num_rows: Optional[int] = ROWS,
    inputs: Optional[Mapping[str, Any]] = None,
) -> Dict[str, Any]:
    """Write model.meta and model.ckpt; returns the arguments of `ConvertOptions`."""
    inputs = inputs or {"x": X}
    prefix = os.path.join(str(folder), "model")
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        fed, outputs = _built(compute, inputs, num_rows, tpu)
        tf.train.get_or_create_global_step()  # a checkpoint holds at least that
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        tf.train.Saver().save(session, prefix + ".ckpt", write_meta_graph=False)
        tf.train.export_meta_graph(prefix + ".meta")
        return {
            "source": prefix + ".meta",
            "checkpoint": prefix + ".ckpt",
            "out": os.path.join(str(folder), "bundle"),
            "inputs": {name: tensor.name for name, tensor in fed.items()},
            "outputs": {name: tensor.name for name, tensor in outputs.items()},
        }


def _built(compute: Compute, inputs: Mapping[str, Any], num_rows: Optional[int], tpu: bool) -> Any:
    """Placeholders and outputs by name, in the default graph."""
    fed = {
        name: tf.placeholder(_dtype(array), (num_rows,) + array.shape[1:], name=name)
        for name, array in sorted(inputs.items())
    }
    with tf.variable_scope("", use_resource=True):
        return fed, _on_tpu(compute, fed) if tpu else dict(compute(**fed))


def _on_tpu(compute: Compute, fed: Mapping[str, Any]) -> Dict[str, Any]:
    names = []

    def computation(*tensors: Any) -> Any:
        outputs = compute(**dict(zip(sorted(fed), tensors)))
        names.extend(sorted(outputs))
        return [outputs[name] for name in names]

    found = tf.tpu.rewrite(computation, [fed[name] for name in sorted(fed)])
    return dict(zip(names, found if isinstance(found, (list, tuple)) else [found]))


def _dtype(array: Any) -> Any:
    return tf.string if array.dtype == object else array.dtype
