"""The models of vision, and what each of their input forms has to give."""

from __future__ import annotations

from types import SimpleNamespace

from tests.conversion.models import detector, dilated, efficientnet, resnet
from tests.conversion.models.harness import ALONE, Form, Model


def variant(module, **changes):
    """The same model with other params."""
    params = {**module.params(), **changes}
    return SimpleNamespace(**{**vars(module), "params": lambda: dict(params)})


EXACT = {
    "serve": Form(),
    "tpu": Form(),
    "rewrite": Form(),
    "replicate": Form(batch="fixed"),
    "model_fn": Form(),
    **ALONE,
}
ROUNDED = variant(resnet, optimizer="lars", precision="bfloat16", **resnet.ROUNDED)

VISION = [
    Model("resnet", resnet, EXACT),
    Model("efficientnet", efficientnet, EXACT, weights="raw"),
    Model("dilated", dilated, EXACT),
    Model("detector", detector, EXACT),
    Model("detector_loop", variant(detector, suppression="loop"), EXACT),
]
