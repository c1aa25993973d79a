"""What a conversion is asked for; loads no TensorFlow, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Mapping, Optional

from batchinfer.errors import InputError
from conversion.parity import DEFAULT_TOLERANCE, Tolerance

PRECISIONS = ("float32",)


@dataclass(frozen=True)
class ConvertOptions:
    """What `jobs/convert.py` was asked for; see its --help.

    Attributes:
        source: path of the artifact.
        out: folder of the bundle; must not exist.
        checkpoint: prefix or folder; None takes the artifact's own.
        inputs, outputs: tensors by name; empty takes the signature_def.
        signature: name of the signature_def.
        rules: path of the rules file.
        reference: path of the .npz that the bundle is compared with.
        tolerance: how far its outputs may be from the reference.
        allow_parity_failure: write the bundle even then, with the report in it.
        precision: what bfloat16 becomes.
    """

    source: str
    out: str
    checkpoint: Optional[str] = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    signature: str = "serving_default"
    rules: Optional[str] = None
    reference: Optional[str] = None
    tolerance: Tolerance = DEFAULT_TOLERANCE
    allow_parity_failure: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision must be one of {', '.join(PRECISIONS)}; found {self.precision}"
            )
