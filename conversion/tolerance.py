"""How far a value may be from its reference, and where each default comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, Tuple

import numpy as np

from batchinfer.errors import InputError

# float32 on another device or TensorFlow gave up to 2.5e-7 on probabilities.
DEFAULT_ATOL = 1e-5
DEFAULT_RTOL = 1e-5


@dataclass(frozen=True)
class Tolerance:
    """`|found - expected| <= atol + rtol * |expected| + of_scale * max |expected|`.

    Attributes:
        atol, rtol: as numpy.allclose has them.
        of_scale: share of the output's largest finite value. In 8 bits of mantissa an entry is
            as wrong as the largest entries that went into its sum, however small it is itself.
    """

    atol: float = DEFAULT_ATOL
    rtol: float = DEFAULT_RTOL
    of_scale: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < float("inf") for value in asdict(self).values()):
            raise InputError(f"atol and rtol must be 0 or more and finite; found {self}")

    def allowed(self, expected: Any) -> Any:
        """The largest difference allowed for each value of a float64 array."""
        finite = np.abs(expected[np.isfinite(expected)])
        scale = float(finite.max(initial=0.0))
        return self.atol + self.rtol * np.abs(expected) + self.of_scale * scale

    def to_json(self) -> Dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"atol {self.atol:g}, rtol {self.rtol:g}"
        return text + (f", {self.of_scale:g} of the output's scale" if self.of_scale else "")


# By the arithmetic that the bundle, its source graph or the reference computes in, whichever is
# the coarsest. bfloat16 has 8 bits: 1e-2 is what TPU predictions agree to (measured 0.009 on
# probabilities of a ResNet, 0.027 on logits of scale 4.4). float16 has 11: 0.0090 and 0.0042
# were measured on probabilities of two image models.
TOLERANCES = {
    "bfloat16": Tolerance(1e-2, 0.0, 3e-2),
    "float16": Tolerance(1e-3, 0.0, 1e-2),
    "float32": Tolerance(DEFAULT_ATOL, DEFAULT_RTOL, 1e-5),
}


def tolerance_for(arithmetics: Iterable[str]) -> Tuple[str, Tolerance]:
    """The coarsest of the arithmetics involved, and its default."""
    name = min(arithmetics, key=list(TOLERANCES).index)
    return name, TOLERANCES[name]
