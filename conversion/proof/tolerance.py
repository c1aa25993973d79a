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
    """`|found - expected| <= atol + rtol * |expected| + of_scale * scale`.

    Attributes:
        atol, rtol: as numpy.allclose has them.
        of_scale: share of the output's scale (see `scale_of`). In 8 bits of mantissa an entry is
            as wrong as the largest entries that went into its sum, however small it is.
        of_spread: atol is at most this share of the output's standard deviation; 0 leaves it as
            it is. An output of values around 1e-6 would pass any atol of 1e-5.
    """

    atol: float = DEFAULT_ATOL
    rtol: float = DEFAULT_RTOL
    of_scale: float = 0.0
    of_spread: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < float("inf") for value in asdict(self).values()):
            raise InputError(f"atol and rtol must be 0 or more and finite; found {self}")

    def allowed(self, expected: Any) -> Any:
        """The largest difference allowed for each value of a float64 array."""
        values = ordinary(expected)
        spread = float(values.std()) if values.size else 0.0
        atol = min(self.atol, self.of_spread * spread) if self.of_spread * spread else self.atol
        return atol + self.rtol * np.abs(expected) + self.of_scale * scale_of(values)

    def to_json(self) -> Dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"atol {self.atol:g}, rtol {self.rtol:g}"
        return text + (f", {self.of_scale:g} of the output's scale" if self.of_scale else "")


def ordinary(expected: Any) -> Any:
    """The finite values of an array that are no sentinels, flat.

    Masks write -1e4, -1e9 or float32's least number between logits. As the scale of an output
    they would allow any logit. A sentinel is 1e3 or more, and 30 times what comes next to it.
    """
    values = expected[np.isfinite(expected)].ravel()
    sizes = np.unique(np.abs(values))
    sizes = sizes[sizes > 0]
    gaps = np.flatnonzero((sizes[1:] >= 30 * sizes[:-1]) & (sizes[1:] >= 1e3))
    return values[np.abs(values) <= sizes[gaps[0]]] if len(gaps) else values


def scale_of(values: Any) -> float:
    """How large an output's values are: six times their median, or the largest where that is less.

    That is four standard deviations of a normal distribution. The largest value alone would let
    the ids beside a detector's scores say how far a score may be off.
    """
    sizes = np.abs(values[values != 0])
    return float(min(sizes.max(), 6 * np.median(sizes))) if sizes.size else 0.0


# By the arithmetic that the bundle, its source graph or the reference computes in, whichever is
# the coarsest. bfloat16 has 8 bits: 1e-2 is what TPU predictions agree to (measured 0.009 on
# probabilities of a ResNet, 0.027 on logits of scale 4.4). float16 has 11: 0.0090 and 0.0042
# were measured on probabilities of two image models.
TOLERANCES = {
    "bfloat16": Tolerance(1e-2, 2e-2, 3e-2, of_spread=0.3),
    "float16": Tolerance(1e-3, 5e-3, 1e-2, of_spread=0.1),
    "float32": Tolerance(DEFAULT_ATOL, DEFAULT_RTOL, 1e-5, of_spread=1e-3),
}


def tolerance_for(arithmetics: Iterable[str]) -> Tuple[str, Tolerance]:
    """The coarsest of the arithmetics involved, and its default."""
    name = min(arithmetics, key=list(TOLERANCES).index)
    return name, TOLERANCES[name]
