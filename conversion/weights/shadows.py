"""What trainers of TF 1.15 keep beside a variable: optimizer slots and moving averages, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Mapping, Optional, Tuple

from conversion.weights.specs import Dims, VariableSpec, same_shape

SLOT, AVERAGE, DEBIAS, UNKNOWN = "slot", "average", "debias", "unknown"

# Names of slots are the names of their optimizers: slot_creator.py makes `<variable>/<name>[_n]`.
# Only these decide alone: an average's name is free, `momentum` or `accumulated` as well.
_OPTIMIZERS = frozenset(
    [
        "Adam",
        "AdamW",
        "AdaMax",
        "Nadam",
        "Momentum",
        "MomentumW",
        "RMSProp",
        "Adagrad",
        "AdagradDA",
        "Adadelta",
        "Ftrl",
        "ProximalAdagrad",
        "RegAdagrad",
        "LARSOptimizer",
        "PowerSignOptimizer",
        "AddSignOptimizer",
        "Shampoo",
        "Adafactor",
        "SM3",
        "LAMB",
    ]
)
_AVERAGE_WORDS = re.compile(r"(?i)average|avg|polyak|(^|_)(ema|swa|shadow)($|_|\d)")
_KERAS_SLOTS = frozenset(
    ["m", "v", "vhat", "momentum", "rms", "mg", "accumulator", "accum_grad", "accum_var", "linear"]
)  # tensorflow/python/keras/optimizer_v2


@dataclass(frozen=True)
class Shadow:
    """A checkpoint variable that belongs to another.

    Attributes:
        spec: the checkpoint's entry.
        base: name of the variable that it belongs to.
        scope: what stands before the base's name, "" or with its slash. An optimizer that is
            made inside a variable_scope repeats the scope: `m/m/kernel/Adam`.
        suffix: what stands behind it, such as `Adam_1`.
        family: the optimizer's or the average's name, such as `Adam`.
        kind: `SLOT`, `AVERAGE`, `DEBIAS`, or `UNKNOWN`: a slot or an average of that name.
    """

    spec: VariableSpec
    base: str
    scope: str
    suffix: str
    family: str
    kind: str

    @property
    def reason(self) -> str:
        """Why a bundle does not have it."""
        return {
            SLOT: f"optimizer slot ({self.family})",
            AVERAGE: f"moving average ({self.family})",
            DEBIAS: "state of a zero-debiased moving average",
            UNKNOWN: f"optimizer slot or moving average ({self.family})",
        }[self.kind]


def find_shadows(
    specs: Iterable[VariableSpec],
    read: Mapping[str, Dims] = {},
) -> Dict[str, Shadow]:
    """Slots and averages among a checkpoint's variables, by name.

    Recognised by structure: `[scope/]<variable>/<name>[_n]` of the variable's shape, whatever
    the name; known names have any shape, because some optimizers keep rows and columns.

    Args:
        read: shape of each variable that the graph reads, by its checkpoint name.
    """
    specs = tuple(specs)
    known: Dict[str, Dims] = {spec.name: spec.shape for spec in specs}
    known.update({name: shape for name, shape in read.items() if name not in known})
    found = {spec.name: _shadow(spec, known) for spec in specs}
    shadows = {name: one for name, one in found.items() if one is not None}
    numbered = {(one.base, one.scope, one.family) for one in shadows.values() if _number(one)}
    for name, one in shadows.items():
        if one.kind == UNKNOWN and (one.base, one.scope, one.family) in numbered:
            shadows[name] = replace(one, kind=SLOT)
    return shadows


def _number(shadow: Shadow) -> bool:
    return shadow.kind == UNKNOWN and shadow.suffix != shadow.family


def _shadow(spec: VariableSpec, known: Mapping[str, Dims]) -> Optional[Shadow]:
    mesh = re.fullmatch(r"(.+)_slot_(vr|vc|v|m)", spec.name)
    if mesh and mesh.group(1) in known:
        return Shadow(spec, mesh.group(1), "", "slot_" + mesh.group(2), "Adafactor", SLOT)
    parts = spec.name.split("/")
    for width in (1, 2):
        rest, suffix = parts[:-width], "/".join(parts[-width:])
        for base, scope in _bases(spec, rest, known):
            family, kind = _family(suffix, "" if base.startswith(scope) else scope)
            full = spec.part.full if spec.part else spec.shape
            if kind and (_any_shape(family, kind) or same_shape(full, known[base])):
                return Shadow(spec, base, scope, suffix, family, kind)
    return None


def _bases(spec: VariableSpec, rest: List[str], known: Mapping[str, Dims]) -> List[Tuple[str, str]]:
    """The variable that it belongs to, the longest known name, and what stands before it."""
    if spec.slices:
        for end in range(len(rest) - 1, 0, -1):
            base = "/".join(rest[:end])
            if base in known and part_of("/".join(rest[end:]), base) >= 0:
                return [(base, "")]
    for start in range(len(rest)):
        base = "/".join(rest[start:])
        if base in known and base != spec.name:
            return [(base, "".join(part + "/" for part in rest[:start]))]
    return []


def part_of(middle: str, base: str) -> int:
    """The partition that `<base>/<middle>/Adam` is a slot of; -1 when it is none.

    slot_creator.py of TF 1.15 takes off as many characters as `<base>/part_<i>/` has, without
    the scope that stands before it again: inside of `net/` the middle is `t_0`, the end of
    `net/table/part_0` that is as long as the scope.
    """
    number = re.search(r"\d+$", middle)
    if number is None:
        return -1
    for length in range(1, len(number.group()) + 1):
        part = int(number.group()[-length:])
        whole = f"{base}/part_{part}"
        if whole.endswith(middle) or middle.endswith(whole):
            return part
    return -1


def _family(suffix: str, scope: str) -> Tuple[str, str]:
    """Whose suffix it is, and of which kind; ("", "") when it is nobody's."""
    table = re.fullmatch(r"(\w+)/(m|v|linear|accumulator)", suffix)  # TPU embedding tables
    if "/" in suffix:
        return (table.group(1), SLOT) if table and table.group(1) in _OPTIMIZERS else ("", "")
    if suffix in ("biased", "local_step"):
        return suffix, DEBIAS
    if scope and suffix in _KERAS_SLOTS:  # a Keras optimizer's name is a scope before the variable
        return scope.rstrip("/").split("/")[-1], SLOT
    bert = re.fullmatch(r"(adam|lamb)_[mv]", suffix)
    if bert:
        return bert.group(1), SLOT
    family = re.sub(r"_\d+$", "", suffix)
    if family in _OPTIMIZERS:
        return family, SLOT
    if _AVERAGE_WORDS.search(family):
        return family, AVERAGE
    return family, UNKNOWN


def _any_shape(family: str, kind: str) -> bool:
    return kind == DEBIAS or family in _OPTIMIZERS
