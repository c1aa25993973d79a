"""The user's model_fn or build function, called in a graph of its own, for one device."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from batchinfer.errors import BatchinferError, InputError
from batchinfer.tf1 import tf
from conversion.code import warm_start
from conversion.code.answered import answered
from conversion.code.features import Declared, Field, leaves, placed, placeholder, read_features
from conversion.code.params import Params, ParamsFile, made, read_params, without_tpu
from conversion.code.spec_outputs import flat_outputs, outputs_of, row_by_row
from conversion.code.tpu_api import one_device
from conversion.code.tpu_context import HostContext
from conversion.code.user_code import (
    blamed,
    call_accepted,
    flags_set,
    from_factory,
    importable,
    load,
)
from conversion.options import ModelCode


@dataclass(frozen=True)
class Built:
    """A model in a graph of its own.

    Attributes:
        graph: holds the model; nothing in it was run.
        fields: what the features file declares, by input name.
        inputs: placeholder (or SparseTensor of placeholders) by input name.
        outputs: tensor with a row per input row, by output name.
        saver: of the model's scaffold; None where it has none.
        batch_rows: the fixed batch; None when it is open.
        notes: what was left out or changed, a sentence each.
    """

    graph: Any
    fields: Mapping[str, Field]
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    saver: Any
    batch_rows: Optional[int]
    notes: Tuple[str, ...]


def build_model(code: ModelCode, checkpoint: str, use_resource: bool) -> Built:
    """Call the user's function in a new graph, as for a run on one device without a TPU.

    Code that computes with the number of shards, which such a run has not, is built as for a
    single core.

    Args:
        checkpoint: prefix of the checkpoint; its names answer reads of one that is gone.
        use_resource: whether variables are resource variables, as a TPU's are.

    Raises:
        InputError: no TensorFlow 1.15; mistakes in the files; or whatever goes wrong in the
            user's code, with where it was and what the code was given.
    """
    _require_estimator()
    declared = read_features(code.features)
    file = read_params(code.params)
    settings = [file.params or {}, file.factory or {}, file.flags]
    remote = warm_start.remote_checkpoints({"params": settings})
    with importable(), answered_for(checkpoint, remote):
        function = _function(code, file)
        with flags_set(file.flags, file.where):
            try:
                return _built(code, function, declared, file, use_resource)
            except InputError as error:
                if error.__cause__ is None:  # refused by us, not failed in the code
                    raise
                with one_device(number_of_shards=1), contextlib.suppress(BatchinferError):
                    return _built(code, function, declared, file, use_resource)
                raise


@contextlib.contextmanager
def answered_for(checkpoint: str, remote: Tuple[str, ...]) -> Iterator[None]:
    """The TPU's API for one device, and no reads of checkpoints that are gone."""
    with one_device(), answered(warm_start.answers(checkpoint, remote)):
        yield


def _require_estimator() -> None:
    if not tf.__version__.startswith("1."):
        raise InputError(
            f"model code needs TensorFlow 1.15 (Python 3.7), which has tf.estimator and "
            f"tf.contrib; found TensorFlow {tf.__version__}. Convert there; the bundle runs here"
        )


def _option(code: ModelCode) -> Tuple[str, str]:
    return ("--model-fn", code.model_fn) if code.model_fn else ("--build", code.build)


def _function(code: ModelCode, file: ParamsFile) -> Any:
    """What `--model-fn` or `--build` names, or what the factory that it names gives."""
    option, named = _option(code)
    if file.factory is None:
        return load(named, option)
    load(named, option)  # flags are defined by then
    with flags_set(file.flags, file.where):
        return from_factory(named, option, made(file.factory))


def _built(
    code: ModelCode, function: Any, declared: Declared, file: ParamsFile, use_resource: bool
) -> Built:
    what = " ".join(_option(code))
    mode = _estimator_mode(code.mode)
    graph = tf.Graph()
    with graph.as_default(), tempfile.TemporaryDirectory(prefix="batchinfer-") as model_dir:
        tf.set_random_seed(0)
        features = placed(declared.features, placeholder)
        labels = placed(declared.labels, placeholder)
        function, own = _of_estimator(function)
        params = params_for(file, own, declared.batch_rows)
        offered = {"labels": labels, "mode": mode, "params": params}
        if code.model_fn:
            offered["config"] = _run_config(model_dir)
        told = _told(declared, mode, params, declared.batch_rows)
        with tf.variable_scope("", use_resource=use_resource), blamed(f"{what} failed", told):
            tf.train.get_or_create_global_step()  # an Estimator makes it first
            returned = call_accepted(function, what, _copied(features), offered)
            found = (
                outputs_of(returned, code.mode, what)
                if code.model_fn
                else flat_outputs(returned, what)
            )
            outputs, notes = row_by_row(found, declared.batch_rows, what)
            saver = _scaffold_saver(returned)
    return Built(
        graph,
        {field.name: field for field in declared.fields},
        _named(declared, features, labels),
        outputs,
        saver,
        declared.batch_rows,
        _notes(declared) + notes,
    )


def _estimator_mode(mode: str) -> str:
    keys = tf.estimator.ModeKeys
    return str({"predict": keys.PREDICT, "eval": keys.EVAL}[mode])


def _of_estimator(function: Any) -> Tuple[Any, Mapping[str, Any]]:
    """Of an Estimator its model_fn and params; a TPUEstimator keeps the model_fn in a wrapper."""
    if not isinstance(function, tf.estimator.Estimator):
        return function, {}
    model_fn, params = function._model_fn, function.params or {}
    if isinstance(function, tf.estimator.tpu.TPUEstimator):
        inside = dict(zip(model_fn.__code__.co_freevars, model_fn.__closure__))
        model_fn = inside["model_fn"].cell_contents
    return model_fn, params if isinstance(params, Mapping) else params.values()


def params_for(file: ParamsFile, own: Mapping[str, Any], batch_rows: Optional[int]) -> Params:
    """What the model_fn gets: `use_tpu` is false, and the batch size there if it is fixed.

    Args:
        own: what the code brings along; the file's win.
    """
    fields: Dict[str, Any] = dict(without_tpu({**own, **made(dict(file.params or {}))}))
    fields["use_tpu"] = False
    if batch_rows is not None:
        fields["batch_size"] = batch_rows
    return Params(fields, file.where, HostContext())


def _run_config(model_dir: str) -> Any:
    tpu = tf.estimator.tpu
    return tpu.RunConfig(model_dir=model_dir, tpu_config=tpu.TPUConfig(num_shards=1))


def _copied(structure: Any) -> Any:
    """The same tensors in a new structure: code may change the dict that it is given."""
    if isinstance(structure, dict):
        return {key: _copied(value) for key, value in structure.items()}
    return structure


def _told(declared: Declared, mode: str, params: Params, batch_rows: Optional[int]) -> str:
    """What the code was given, and what to try."""
    features = "; ".join(str(field) for field in leaves(declared.features))
    labels = "; ".join(str(field) for field in leaves(declared.labels)) or "None"
    lines = [
        f"It was given mode {mode!r}, features {features}, labels {labels}, params with "
        f"{', '.join(sorted(map(str, params)))}.",
    ]
    if batch_rows is None:
        lines.append(
            "If it needs to know the batch size, give each first dimension of --features the same "
            "number, such as float32[8, 28, 28, 1]."
        )
    return "\n".join(lines)


def _scaffold_saver(returned: Any) -> Any:
    """The saver that says how variables are named in the checkpoint; None where there is none."""
    make = getattr(returned, "scaffold_fn", None)
    scaffold = make() if make else getattr(returned, "scaffold", None)
    return getattr(scaffold, "saver", None)


def _named(declared: Declared, features: Any, labels: Any) -> Dict[str, Any]:
    fields = declared.fields
    tensors = _tensors(features) + _tensors(labels)
    return {field.name: tensor for field, tensor in zip(fields, tensors)}


def _tensors(structure: Any) -> List[Any]:
    """The tensors of a structure in the order of its fields."""
    if isinstance(structure, dict):
        return [tensor for value in structure.values() for tensor in _tensors(value)]
    if isinstance(structure, tuple) and not isinstance(structure, tf.SparseTensor):
        return [tensor for value in structure for tensor in _tensors(value)]
    return [] if structure is None else [structure]


def _notes(declared: Declared) -> Tuple[str, ...]:
    return tuple(
        f"feature {field.name} is float32 in place of bfloat16"
        for field in declared.fields
        if field.rounded
    )
