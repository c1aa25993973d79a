"""Names that trainers of TF 1.15 save beside the model without a variable they belong to."""

from __future__ import annotations

import re
from typing import Iterable, Optional

from conversion.weights.shadows import SLOT, Shadow

_SLOT_NAMES = (
    "AdamW|Adam|AdaMax|Nadam|MomentumW|Momentum|RMSProp|AdagradDA|Adagrad|Adadelta|Ftrl|"
    "ProximalAdagrad|RegAdagrad|LARSOptimizer|PowerSignOptimizer|AddSignOptimizer|Shampoo|"
    "Adafactor|SM3"
)
_KERAS_NAMES = "Adam|Adamax|Nadam|SGD|RMSprop|Adagrad|Adadelta|Ftrl"
_KERAS_HYPER = (
    "iter|iterations|beta_1|beta_2|decay|learning_rate|momentum|rho|momentum_cache|"
    "learning_rate_power|l1_regularization_strength|l2_regularization_strength|epsilon"
)

# Names and reasons; the first whose pattern matches the whole name holds.
_REASONS = (
    (r"(.*/)?global_step(_\d+)?", "training step"),
    (r"(.*/)?beta[12]_power(_\d+)?", "optimizer state (power of beta)"),
    (rf".+/({_SLOT_NAMES})(_\d+)?", "optimizer slot of a variable that is not here"),
    (rf".+/({_SLOT_NAMES})/(m|v)", "optimizer slot of a variable that is not here"),
    (r".+/(adam|lamb)_[mv]", "optimizer slot (BERT's AdamWeightDecay, LAMB)"),
    (r".+_slot_(vr|vc|v|m)", "optimizer slot (Adafactor)"),
    (
        rf"(.*/)?({_KERAS_NAMES})(_\d+)?/({_KERAS_HYPER}|.*/(m|v|vhat|momentum|rms|accumulator))",
        "optimizer state (Keras)",
    ),
    (r".+/ExponentialMovingAverage(_\d+)?", "moving average of a variable that is not here"),
    (r"(.*/)?(good_steps|bad_steps|loss_scale|current_loss_scale)", "loss scale of training"),
    (r"(.*/)?(flat_grad|grad_buffer|moment1)", "optimizer state (GGT)"),
    (r"(.*/)?stale_counter", "optimizer state (DropStaleGradient)"),
    (r"tpu_embedding_dummy_table_variable_.*", "placeholder of a TPU embedding table"),
    (r"_CHECKPOINTABLE_OBJECT_GRAPH|(.*/)?save_counter(/.*)?", "bookkeeping of the saver"),
)


def leftover_reason(name: str, shadows: Iterable[Shadow]) -> Optional[str]:
    """Why a variable that no graph reads and that belongs to no other may be left out."""
    found = next((reason for pattern, reason in _REASONS if re.fullmatch(pattern, name)), None)
    if found:
        return found
    # A Keras optimizer of any name: its slots show which scope is its own.
    keras = {one.scope for one in shadows if one.kind == SLOT and one.scope}
    scope, _, last = name.rpartition("/")
    if scope + "/" in keras and re.fullmatch(_KERAS_HYPER, last):
        return f"optimizer state ({scope.split('/')[-1]})"
    return None
