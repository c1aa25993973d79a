"""A model written like TPU code -> its checkpoint, its run without a TPU, and every input form.

A model is a module with

    FEATURES                        dtype and row shape by name: {"ids": ("int32", (16,))}
    params()                        what its training script would pass; plain values
    make_features(num_rows, seed)   arrays by name, as FEATURES says
    make_labels(num_rows, seed)     arrays by name; {} where the labels are features
    model_fn(features, labels, mode, params)

and, where the host does work before the TPU (string lookups), `host(features)`: raw tensors to
those that model_fn takes; where each core gets more than the host sends (TPU embedding),
`on_core(batch_rows, replicas)`: a function over the features there. `EXPORT_API = "V2"` says that
model_fn itself places its TPU part when exported. TensorFlow's own API builds every graph;
nothing is patched.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional

import numpy as np
import tensorflow as tf

from batchinfer.batch import pad

SEED = 20
TRAIN_STEPS = 3
FORMS = ("serve", "tpu", "rewrite", "replicate", "model_fn", "training_meta", "checkpoint")
EXPORTED = ("serve", "tpu")  # whose checkpoint holds what the graph reads, and no more


@dataclass(frozen=True)
class Form:
    """What converting one input form has to give.

    Attributes:
        refused: words of the error; "" when the form converts.
        batch: "dynamic", or "fixed" where the batch stays as it was traced.
        atol: of scale, the largest value of the reference and at least 1.
    """

    refused: str = ""
    batch: str = "dynamic"
    atol: float = 1e-6


# What no model's predictions can be taken from.
ALONE = {
    "training_meta": Form(refused="training"),
    "checkpoint": Form(refused="checkpoint alone"),
}


@dataclass(frozen=True)
class Model:
    """One model in one variant, and what each of its input forms has to give.

    Attributes:
        name: unique; names folders and tests.
        module: the module described above.
        forms: `Form` by the name of the input form, one of `FORMS`.
        tpu_params: params of the TPU graphs alone, such as their precision.
        batch_rows: rows that static graphs are traced with.
        replicas: cores that `replicate` and `training_meta` are built for.
        weights: None, or what is chosen of a checkpoint with moving averages: "raw" or "ema".
        file_params: params of the model_fn form alone, such as a path that is long gone.
        rules: text of the rules file, if the training checkpoint holds more than the model.
    """

    name: str
    module: Any
    forms: Mapping[str, Form]
    tpu_params: Mapping[str, Any] = field(default_factory=dict)
    batch_rows: int = 4
    replicas: int = 2
    weights: Optional[str] = None
    file_params: Mapping[str, Any] = field(default_factory=dict)
    rules: str = ""

    def params(self, use_tpu: bool, batch_rows: int) -> Dict[str, Any]:
        """What TPUEstimator hands to model_fn."""
        changes = self.tpu_params if use_tpu else {}
        return {**self.module.params(), **changes, "use_tpu": use_tpu, "batch_size": batch_rows}

    def batch_sizes(self) -> List[int]:
        """One row, the traced batch, and two sizes that are no multiple of it."""
        return [1, self.batch_rows, self.batch_rows - 1, 2 * self.batch_rows + 1]

    def placeholders(self, num_rows: Optional[int]) -> Dict[str, Any]:
        return {
            name: tf.placeholder(dtype, (num_rows,) + tuple(shape), name=name)
            for name, (dtype, shape) in sorted(self.module.FEATURES.items())
        }

    def host(self, features: Mapping[str, Any]) -> Dict[str, Any]:
        """What the host does before the TPU's part."""
        return dict(getattr(self.module, "host", dict)(features))

    def on_core(self, replicas: int) -> Any:
        """What each core adds to the features that the host sends."""
        made = getattr(self.module, "on_core", None)
        return made(self.batch_rows, replicas) if made else dict


def train(model: Model, folder: str) -> str:
    """A few steps of the true optimizer on the host; returns the checkpoint's prefix."""
    rows = model.batch_rows
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(SEED)
        np.random.seed(SEED)
        step = tf.train.get_or_create_global_step()
        features = constants(model.module.make_features(rows, SEED))
        labels = constants(model.module.make_labels(rows, SEED))
        params = model.params(use_tpu=False, batch_rows=rows)
        spec = model.module.model_fn(
            model.host(features), labels, tf.estimator.ModeKeys.TRAIN, params
        )
        if spec.scaffold_fn:
            spec.scaffold_fn()
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        for _ in range(TRAIN_STEPS):
            session.run(spec.train_op)
        return tf.train.Saver().save(
            session, os.path.join(folder, "model.ckpt"), global_step=step, write_meta_graph=False
        )


def constants(arrays: Mapping[str, Any]) -> Dict[str, Any]:
    return {name: tf.constant(array) for name, array in sorted(arrays.items())}


def reference(model: Model, checkpoint: str, features: Mapping[str, Any]) -> Any:
    """The model run without a TPU in float32.

    Returns:
        The predictions by the size of the batches that were run, as sums of other sizes differ
        by a rounding; and the features as the host hands them to model_fn.
    """
    num_rows = len(next(iter(features.values())))
    with tf.Graph().as_default(), tf.Session() as session:
        fed = model.placeholders(None)
        params = model.params(use_tpu=False, batch_rows=num_rows)
        on_host = model.host(fed)
        spec = model.module.model_fn(dict(on_host), None, tf.estimator.ModeKeys.PREDICT, params)
        saver = predict_saver(spec, model.weights)
        session.run(tf.tables_initializer())
        saver.restore(session, checkpoint)
        run = session.make_callable([spec.predictions, on_host], [fed[name] for name in fed])
        by_size = {}
        for size in model.batch_sizes():
            parts = [
                run(*[pad(features[name][start : start + size], size) for name in fed])
                for start in range(0, num_rows, size)
            ]
            by_size[size] = [_joined([part[i] for part in parts], num_rows) for i in range(2)]
        return {size: found[0] for size, found in by_size.items()}, by_size[num_rows][1]


def _joined(parts: List[Mapping[str, Any]], num_rows: int) -> Dict[str, Any]:
    return {name: np.concatenate([one[name] for one in parts])[:num_rows] for name in parts[0]}


def predict_saver(spec: Any, weights: Optional[str] = None) -> Any:
    """The scaffold's saver where model_fn gives one; else the variables or their averages."""
    scaffold = spec.scaffold_fn() if spec.scaffold_fn else None
    if scaffold is not None and scaffold.saver is not None:
        return scaffold.saver
    if weights == "ema":
        return tf.train.Saver(tf.train.ExponentialMovingAverage(0.9).variables_to_restore())
    return tf.train.Saver()


class Prepared:
    """One model's checkpoint and forms on disk, each made when it is first asked for."""

    def __init__(self, model: Model, folder: str, checkpoint: str) -> None:
        self.model = model
        self.folder = folder
        self.checkpoint = checkpoint
        self._forms: Dict[str, Dict[str, Any]] = {}
        self._reference: Any = None

    def form(self, name: str) -> Dict[str, Any]:
        """The arguments of `ConvertOptions` for one input form, but for `out`."""
        from tests.conversion.models import forms

        if name not in self._forms:
            made = getattr(forms, name)(self.model, self.checkpoint, self.folder)
            rules = None if name in EXPORTED else self._rules()
            choices = {"weights": self.model.weights, "rules": rules}
            self._forms[name] = {**choices, **made}
        return self._forms[name]

    def _rules(self) -> Optional[str]:
        if not self.model.rules:
            return None
        path = os.path.join(self.folder, "rules.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.model.rules)
        return path

    def reference(self, form: str) -> Any:
        """Seeded rows that training did not see, as a form takes them; predictions by batch."""
        if self._reference is None:
            raw = self.model.module.make_features(max(self.model.batch_sizes()), seed=3)
            self._reference = (raw, *reference(self.model, self.checkpoint, raw))
        raw, predictions, on_host = self._reference
        return (on_host if form == "model_fn" else raw), predictions


class Workshop:
    """Prepared models, each made once; variants of one module share its checkpoint."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._checkpoints: Dict[str, str] = {}
        self._prepared: Dict[str, Prepared] = {}

    def prepare(self, model: Model) -> Prepared:
        if model.name not in self._prepared:
            folder = os.path.join(self.folder, model.name)
            os.makedirs(folder)
            module = model.module.__name__
            if module not in self._checkpoints:
                self._checkpoints[module] = train(model, folder)
            self._prepared[model.name] = Prepared(model, folder, self._checkpoints[module])
        return self._prepared[model.name]
