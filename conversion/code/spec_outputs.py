"""What a model_fn or a build function returned -> the bundle's outputs, by name."""

from __future__ import annotations

import inspect
from typing import Any, Dict, List, Mapping, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf

SINGLE = "predictions"  # name of an output that the code gives no name


def outputs_of(returned: Any, mode: str, what: str) -> Dict[str, Any]:
    """The tensors that a model_fn's spec offers as predictions, by name.

    Args:
        returned: an EstimatorSpec or a TPUEstimatorSpec.
        mode: "predict": its predictions, else its export_outputs; "eval": its predictions and
            what it hands to its metrics.

    Raises:
        InputError: it is no spec, or offers nothing.
    """
    if not hasattr(returned, "predictions"):
        kind = "a function" if callable(returned) else f"a {type(returned).__name__}"
        hint = (
            ". If it gives the model_fn, put its arguments into a section `factory:` of --params"
            if callable(returned)
            else ""
        )
        raise InputError(f"{what} returned {kind}; expected an EstimatorSpec{hint}")
    found = _flat(returned.predictions)
    if mode == "eval":
        for name, tensor in _metric_inputs(returned).items():
            if not any(tensor is one for one in found.values()):
                found["eval_metrics/" + name if name in found else name] = tensor
    elif not found:
        found = _exported(returned.export_outputs or {}, what)
    if not found:
        raise InputError(
            f"{what} returned a spec without predictions"
            + (" and eval_metrics" if mode == "eval" else " and export_outputs; try --mode eval")
        )
    return found


def flat_outputs(returned: Any, what: str) -> Dict[str, Any]:
    """The tensors that a build function returned, by name.

    Raises:
        InputError: it returned nothing.
    """
    found = _flat(returned)
    if not found:
        raise InputError(f"{what} returned {returned!r}; expected a dict of outputs")
    return found


def row_by_row(
    outputs: Mapping[str, Any], batch_rows: Optional[int], what: str
) -> Tuple[Dict[str, Any], Tuple[str, ...]]:
    """Those of the outputs that have a row per input row, and notes about the others.

    Args:
        batch_rows: the fixed batch; None when it is open.

    Raises:
        InputError: none is left.
    """
    kept: Dict[str, Any] = {}
    notes: List[str] = []
    for name, output in outputs.items():
        why = _not_rows(output, batch_rows)
        if why:
            notes.append(f"output {name} is left out: {why}")
        else:
            kept[name] = tf.convert_to_tensor(output)
    if not kept:
        raise InputError(
            f"{what} gives no output with one row per input row:\n  " + "\n  ".join(notes)
        )
    return kept, tuple(notes)


def _not_rows(output: Any, batch_rows: Optional[int]) -> str:
    """Why an output has no row per input row; "" if it may have."""
    if isinstance(output, tf.SparseTensor):
        return "it is a SparseTensor"
    if isinstance(output, tf.Operation):
        return "it is an operation"
    try:
        shape = tf.convert_to_tensor(output).shape
    except (TypeError, ValueError):
        return f"it is a {type(output).__name__}"
    if shape.ndims is None:
        return ""
    if shape.ndims == 0:
        return "it is a scalar"
    found = shape.as_list()[0]
    if found is not None and found != batch_rows:
        wanted = f"{batch_rows} rows" if batch_rows else "an open batch"
        return f"its first dimension is always {found}; expected {wanted}"
    return ""


def _flat(value: Any, path: str = "") -> Dict[str, Any]:
    """Leaves by the keys on the way to them, joined by `/`; None gives nothing."""
    if value is None:
        return {}
    if isinstance(value, tf.SparseTensor):
        return {path or SINGLE: value}
    if isinstance(value, Mapping):
        items = [(str(key), one) for key, one in value.items()]
    elif isinstance(value, (list, tuple)):
        fields = getattr(value, "_fields", None)
        path = path if fields or path else SINGLE
        items = list(zip(fields or map(str, range(len(value))), value))
    else:
        return {path or SINGLE: value}
    found: Dict[str, Any] = {}
    for key, one in items:
        found.update(_flat(one, f"{path}/{key}" if path else key))
    return found


def _metric_inputs(spec: Any) -> Dict[str, Any]:
    """What a spec hands to its metric_fn; a list is named by the function's arguments."""
    if not getattr(spec, "eval_metrics", None):
        return {}
    function, tensors = spec.eval_metrics
    if isinstance(tensors, Mapping):
        return _flat(tensors)
    names = [
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind == parameter.POSITIONAL_OR_KEYWORD
    ]
    names += [f"eval_metrics/{index}" for index in range(len(names), len(tensors))]
    return dict(zip(names, tensors))


def _exported(export_outputs: Mapping[str, Any], what: str) -> Dict[str, Any]:
    """Those of the default export, or of the only one."""
    name = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
    if name not in export_outputs and len(export_outputs) > 1:
        raise InputError(
            f"{what} returned no predictions and several export_outputs, "
            f"{', '.join(sorted(export_outputs))}; expected one of them to be {name}"
        )
    output = export_outputs.get(name) or next(iter(export_outputs.values()), None)
    parts = {
        field: getattr(output, field, None) for field in ("outputs", "scores", "classes", "value")
    }
    if parts["outputs"] is not None:
        return _flat(parts["outputs"])
    return {field: tensor for field, tensor in parts.items() if tensor is not None}
