"""The models of text and recommendation, and what each of their input forms has to give."""

from __future__ import annotations

from tests.conversion.models import bert
from tests.conversion.models.harness import ALONE, Form, Model

# Every form, for models whose TPU graph does the arithmetic of the other in float32. A static
# batch stands in the reshapes of transformers, so that it stays.
EXACT = {
    "serve": Form(),
    "tpu": Form(),
    "rewrite": Form(batch="fixed"),
    "replicate": Form(batch="fixed"),
    "model_fn": Form(),
    **ALONE,
}

TEXT = [
    Model(
        "bert",
        bert,
        EXACT,
        file_params={"init_checkpoint": "gs://nowhere/uncased/bert_model.ckpt"},
    ),
]
