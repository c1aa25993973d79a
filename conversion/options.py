"""What a conversion is asked for; loads no TensorFlow, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Mapping, Optional, Tuple

from batchinfer.errors import InputError
from conversion.proof.tolerance import Tolerance

PRECISIONS = ("float32", "float16")
TARGETS = ("gpu", "cpu")
WEIGHTS = ("raw", "ema")
MODES = ("predict", "eval")
NO_REFERENCE = "none"


@dataclass(frozen=True)
class ModelCode:
    """Python code that builds the model again, in place of a graph on disk; one of the three.

    Attributes:
        model_fn: `package.module:function`, a TPUEstimator's or an Estimator's model_fn.
        build: `package.module:function`, from a dict of features to a dict of outputs.
        keras: `package.module:function` that returns a Keras model.
        params: path of a YAML file with the model_fn's params.
        features: path of a YAML file with dtype and shape of each feature.
        mode: whose outputs are taken, one of `MODES`.
    """

    model_fn: str = ""
    build: str = ""
    keras: str = ""
    params: Optional[str] = None
    features: Optional[str] = None
    mode: str = "predict"

    @property
    def flags(self) -> Tuple[str, ...]:
        """As one would type them."""
        words: List[str] = []
        for name in ("model_fn", "build", "keras", "params", "features"):
            if getattr(self, name):
                words += ["--" + name.replace("_", "-"), getattr(self, name)]
        return tuple(words) + (("--mode", self.mode) if self.mode != "predict" else ())

    def __post_init__(self) -> None:
        given = [name for name in ("model_fn", "build", "keras") if getattr(self, name)]
        if len(given) != 1:
            found = ", ".join("--" + name.replace("_", "-") for name in given) or "none"
            raise InputError(f"expected one of --model-fn, --build, --keras; found {found}")
        _one_of("mode", self.mode, MODES)


@dataclass(frozen=True)
class ConvertOptions:
    """What `jobs/convert.py` was asked for; see its --help.

    Attributes:
        source: path of the artifact.
        out: folder of the bundle; must not exist.
        checkpoint: prefix or folder; None takes the artifact's own.
        code: what builds the model again; the source is then its checkpoint.
        inputs, outputs: tensors by name; empty takes the signature_def.
        signature: name of the signature_def.
        fixed: values for ever, by the names of placeholders that are no inputs.
        rules: path of the rules file.
        reference: path of the .npz that the bundle is compared with; `NO_REFERENCE` runs
            nothing; None has the source itself compute the outputs.
        tolerance: how far its outputs may be from the reference; None takes the default of the
            arithmetic that is compared (`conversion.tolerance.TOLERANCES`).
        allow_parity_failure: write the bundle even then, with the report in it.
        precision: what bfloat16 becomes, one of `PRECISIONS`.
        weights: one of `WEIGHTS`; None asks when a checkpoint has moving averages as well.
        target: where the bundle shall run, one of `TARGETS`.
        keep_optimizer: write a training checkpoint with slots and global_step beside the bundle.
        optimize: rewrite the graph for speed, where that passes the same comparison.
    """

    source: str
    out: str
    checkpoint: Optional[str] = None
    code: Optional[ModelCode] = None
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    signature: str = "serving_default"
    fixed: Mapping[str, str] = field(default_factory=dict)
    rules: Optional[str] = None
    reference: Optional[str] = None
    tolerance: Optional[Tolerance] = None
    allow_parity_failure: bool = False
    precision: str = "float32"
    weights: Optional[str] = None
    target: str = "gpu"
    keep_optimizer: bool = False
    optimize: bool = True

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("target", self.target, TARGETS)
        if self.weights is not None:
            _one_of("weights", self.weights, WEIGHTS)


def _one_of(name: str, found: str, known: Tuple[str, ...]) -> None:
    if found not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}; found {found}")
