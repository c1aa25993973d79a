"""The models of text and recommendation, and what each of their input forms has to give."""

from __future__ import annotations

from typing import Dict

from tests.conversion.models import albert, bert, decoder, dlrm, lstm, ncf, wide
from tests.conversion.models.harness import ALONE, Form, Model


def every_form(batch: str, atol: float = 1e-6, rewrite: str = "dynamic") -> Dict[str, Form]:
    """All forms convert.

    Args:
        batch: what becomes of a batch that was split over cores when it was traced.
        rewrite: what becomes of one that was traced for one core.
    """
    return {
        "serve": Form(),  # TPUEstimator builds the {serve} graph without use_tpu: in float32
        "tpu": Form(atol=atol),
        "rewrite": Form(batch=rewrite, atol=atol),
        "replicate": Form(batch=batch, atol=atol),
        "model_fn": Form(),
        **ALONE,
    }


def on_tpu_only(batch: str, atol: float = 1e-6, rewrite: str = "dynamic") -> Dict[str, Form]:
    """The forms whose graph a variant of the TPU's part changes."""
    forms = every_form(batch, atol, rewrite)
    return {name: forms[name] for name in ("tpu", "rewrite", "replicate")}


# The embedding memory of a TPU gives its graph vectors, not ids: no table to look up in.
EMBEDDING = Form(refused="RecvTPUEmbeddingActivations")

TEXT = [
    Model(
        "bert",
        bert,
        every_form("fixed"),
        file_params={"init_checkpoint": "gs://nowhere/uncased/bert_model.ckpt"},
    ),
    Model(
        "bert_bfloat16",
        bert,
        # 1/sqrt(8) and gelu's factors become bfloat16 where the code casts the activations.
        {**on_tpu_only("fixed", atol=5e-3), "model_fn": Form(atol=5e-3)},
        tpu_params={"use_bfloat16": True},
        file_params={"use_bfloat16": True},
    ),
    Model("albert", albert, every_form("fixed")),
    Model("lstm", lstm, every_form("fixed")),
    Model(
        "lstm_functions",
        lstm,
        on_tpu_only("fixed"),
        tpu_params={"control_flow_v2": True},
    ),
    Model(
        "lstm_bfloat16",
        lstm,
        {**on_tpu_only("fixed"), "model_fn": Form()},
        tpu_params={"use_bfloat16": True},
        file_params={"use_bfloat16": True},
    ),
    Model(
        "decoder",
        decoder,
        every_form("fixed"),
        rules="drop: [{name: losses_avg/.*, reason: kept for the logs of the training}]",
    ),
    Model(
        "dlrm",
        dlrm,
        {**every_form("fixed"), "rewrite": EMBEDDING, "replicate": EMBEDDING},
    ),
    Model("ncf", ncf, every_form("fixed")),
    Model("wide", wide, every_form("fixed", rewrite="fixed")),  # strings are not made up
]
