"""--keep-optimizer: the checkpoint under its GPU names, to go on training from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from batchinfer.errors import InputError, MappingError
from batchinfer.tf1 import tf
from conversion.weights.checkpoint import read_specs
from conversion.weights.names import Rules
from conversion.weights.shadows import SLOT, Shadow, find_shadows
from conversion.weights.slices import Slice
from conversion.weights.specs import Assignment, GraphVariable, Piece, VariableSpec
from conversion.weights.variable_copy import copy_variables

_OBJECT_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
_BOOKKEEPING = "_CHECKPOINTABLE_OBJECT_GRAPH"


def training_folder(out: str) -> str:
    """Where the training checkpoint of a bundle lies."""
    return os.path.abspath(out) + "-training"


@dataclass(frozen=True)
class TrainingCheckpoint:
    """Everything that a trainer saved, under the names that it has without a TPU.

    CrossShardOptimizer adds no names, so that a model_fn that goes without it finds all of its
    variables, slots and powers again.

    Attributes:
        source: prefix of the checkpoint that training on the TPU left.
        entries: what is copied; values, dtypes and slices stay.
        step: the value of global_step.
        num_slots: how many of the entries are optimizer slots.
    """

    source: str
    entries: Tuple[Assignment, ...]
    step: int
    num_slots: int

    def write(self, folder: str) -> None:
        """Write `model.ckpt-<step>` and the `checkpoint` file by which an Estimator finds it."""
        name = f"model.ckpt-{self.step}"
        copy_variables(self.source, self.entries, os.path.join(folder, name))
        state = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
        with open(os.path.join(folder, "checkpoint"), "w", encoding="utf-8") as file:
            file.write(state)

    def to_json(self, folder: str) -> Dict[str, Any]:
        return {
            "checkpoint": os.path.join(folder, f"model.ckpt-{self.step}"),
            "step": self.step,
            "variables": len({one.target for one in self.entries}),
            "slots": self.num_slots,
        }


def plan_training(source: str, rules: Rules) -> TrainingCheckpoint:
    """What a training checkpoint would hold.

    Raises:
        InputError: the checkpoint is not one of a trainer, or a rule changes variables' shapes.
        MappingError: two entries would have one name.
    """
    specs = [spec for spec in read_specs(source) if spec.name != _BOOKKEEPING]
    by_name = {spec.name: spec for spec in specs}
    shadows = find_shadows(specs)
    _require_optimizer(source, specs, shadows, rules)
    entries = tuple(
        entry
        for spec in specs
        for part in spec.slices or (None,)
        for entry in [_entry(spec, part, _target(spec.name, part, shadows, rules, by_name))]
    )
    _require_one_name_each(entries)
    slots = [one for one in shadows.values() if one.kind == SLOT]
    return TrainingCheckpoint(source, entries, _step(source, specs), len(slots))


def _require_optimizer(
    source: str, specs: List[VariableSpec], shadows: Mapping[str, Shadow], rules: Rules
) -> None:
    names = {spec.name for spec in specs}
    if any(name.endswith(_OBJECT_KEY) for name in names):
        raise InputError(
            f"--keep-optimizer: {source} is an object-based checkpoint (of Keras or "
            "tf.train.Checkpoint), which an Estimator does not restore by name; expected one that "
            "an Estimator or tf.train.Saver wrote"
        )
    if rules.transforms:
        raise InputError(
            "--keep-optimizer: the rules file has transforms, which would have to be made of the "
            "slots as well; expected only renames and drops"
        )
    exported = source.endswith(os.path.join("variables", "variables"))
    slots = any(shadow.kind == SLOT for shadow in shadows.values())
    if not _steps(specs) or (exported and not slots):
        missing = "global_step" if not _steps(specs) else "slots of an optimizer"
        raise InputError(
            f"--keep-optimizer: {source} has no {missing} among its {len(specs)} variables, so "
            "training cannot go on from it; expected the checkpoint that training left: name it "
            "with --checkpoint PREFIX_OR_FOLDER"
        )


def _steps(specs: Iterable[VariableSpec]) -> List[str]:
    names = [spec.name for spec in specs if spec.dtype in ("int64", "int32") and not spec.shape]
    found = [name for name in names if re.fullmatch(r"(.*/)?global_step", name)]
    return sorted(found, key=len)


def _step(source: str, specs: Iterable[VariableSpec]) -> int:
    return int(tf.train.NewCheckpointReader(source).get_tensor(_steps(specs)[0]))


def _require_one_name_each(entries: Iterable[Assignment]) -> None:
    sources: Dict[Tuple[str, Optional[Slice]], List[str]] = {}
    for entry in entries:
        sources.setdefault((entry.target, entry.saved_as), []).append(entry.pieces[0].spec.name)
    twice = [
        f"  {target}  from {', '.join(names)}"
        for (target, _), names in sorted(sources.items(), key=str)
        if len(names) > 1
    ]
    if twice:
        raise MappingError(
            "--keep-optimizer: the renames give several variables one name:\n" + "\n".join(twice)
        )


def _target(
    name: str,
    part: Optional[Slice],
    shadows: Mapping[str, Shadow],
    rules: Rules,
    specs: Mapping[str, VariableSpec],
) -> str:
    """The new name; a slot's follows its variable, even where the rename is of that name alone."""
    shadow = shadows.get(name)
    if shadow is None:
        return rules.target(name)
    base = _target(shadow.base, None, shadows, rules, specs)
    rest = name[len(shadow.scope + shadow.base) :]
    whole = specs[shadow.base].slices if shadow.base in specs else ()
    if part in whole and rest != f"/{shadow.suffix}":
        middle = rest[1 : -len(shadow.suffix) - 1]
        rest = f"/{_middle(shadow, middle, base, whole.index(part))}/{shadow.suffix}"
    return _scope(shadow.scope, shadow.base, base) + base + rest


def _middle(shadow: Shadow, middle: str, base: str, index: int) -> str:
    """What stands between a partitioned variable and its slot's name, under the new name.

    See `part_of` in shadows.py: it is as long as the scope that the slot was made in.
    """
    length = len(middle) + 1
    scope = shadow.base[:length] if shadow.base[:length].endswith("/") else "?" * length
    primary = f"{base}/part_{index}"
    return (_scope(scope, shadow.base, base) + primary)[len(primary) + 1 :]


def _scope(scope: str, old_base: str, base: str) -> str:
    """The scope before a slot's variable, renamed as the variable's own was.

    `m/m/kernel/Adam` of `m/kernel`, which becomes `g/kernel`, is `g/g/kernel/Adam`.
    """
    old, new = old_base.split("/"), base.split("/")
    same = 0
    while same < min(len(old), len(new)) - 1 and old[-1 - same] == new[-1 - same]:
        same += 1
    before, after = ("".join(f"{part}/" for part in one[: len(one) - same]) for one in (old, new))
    if same and before and scope.startswith(before):
        return after + scope[len(before) :]
    return scope


def _entry(spec: VariableSpec, part: Optional[Slice], target: str) -> Assignment:
    """A variable's copy, or that of one of its slices."""
    piece = Piece(spec, part)
    variable = GraphVariable(VariableSpec(target, spec.dtype, piece.shape), spec.name)
    return Assignment((piece,), variable, target, saved_as=part)
