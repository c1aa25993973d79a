"""The models of vision, and what each of their input forms has to give."""

from __future__ import annotations

from types import SimpleNamespace

from tests.conversion.models import detector, dilated, efficientnet, resnet
from tests.conversion.models.harness import ALONE, Form, Model


def variant(module, **changes):
    """The same model with other params."""
    params = {**module.params(), **changes}
    return SimpleNamespace(**{**vars(module), "params": lambda: dict(params)})


TPU = {"tpu": Form(), "rewrite": Form(), "replicate": Form(batch="fixed")}
FOUND = {"serve": Form(), **TPU, "model_fn": Form()}  # what holds a predictor
EXACT = {**FOUND, **ALONE}

VISION = [
    Model("resnet", resnet, EXACT),
    # The same with the constants that bfloat16 holds: nothing else of it is left in a bundle.
    Model(
        "resnet_bfloat16",
        variant(resnet, **resnet.ROUNDED),
        {"rewrite": Form(), "model_fn": Form()},
        tpu_params={"precision": "bfloat16"},
        file_params={"precision": "bfloat16"},
    ),
    # And with constants that bfloat16 rounds (123.675 to 123.5): 0.0026 apart was measured.
    Model(
        "resnet_rounded",
        resnet,
        {"tpu": Form(atol=0.01)},
        tpu_params={"precision": "bfloat16"},
    ),
    Model("efficientnet", efficientnet, EXACT, weights="raw"),
    Model("dilated", dilated, FOUND),
    Model("detector", detector, FOUND),
    Model("detector_loop", variant(detector, suppression="loop"), {"tpu": Form()}),
]
