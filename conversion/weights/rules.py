"""A user's rules file (YAML) -> Rules."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import yaml

from batchinfer.errors import InputError
from conversion.weights.names import Drop, Rename, Rules, Transform
from conversion.weights.steps import Cast, Concat, Reshape, Step, Transpose, UnpermuteMod

EXAMPLE = """\
rename:
  - from: tpu_cnn_model/(.*)
    to: gpu_cnn_model/\\1
drop:
  - name: debug/.*
    reason: written by a hook, not part of the model
transform:
  - to: gpu_cnn_model/table
    from: [table/shard_0, table/shard_1]
    steps: [{concat: 0}, {unpermute_mod: 2}]
    reason: a TPU embedding table with partition_strategy='mod' of two hosts
"""

_KINDS = ("rename", "drop", "transform")
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int32", "int64")


def read_rules(path: Optional[str]) -> Rules:
    """Read a rules file; no path gives no rules.

    Raises:
        InputError: the file cannot be read, has unknown keys, or a rule is not complete.
    """
    if path is None:
        return Rules()
    try:
        with open(path, encoding="utf-8") as file:
            fields = yaml.safe_load(file) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read --rules {path}: {error}") from error
    if not isinstance(fields, dict) or set(fields) - set(_KINDS):
        raise InputError(f"--rules {path}: expected lists {_listed(_KINDS)}, like\n{EXAMPLE}")
    renames = _entries(path, fields.get("rename"), ["from", "to"])
    drops = _entries(path, fields.get("drop"), ["name", "reason"])
    transforms = _entries(path, fields.get("transform"), ["to", "from", "steps", "reason"])
    return Rules(
        renames=tuple(Rename(str(old), str(new)) for old, new in renames),
        drops=tuple(Drop(str(name), str(reason or "")) for name, reason in drops),
        transforms=tuple(_transform(path, *entry) for entry in transforms),
    )


def _entries(path: str, entries: Any, keys: List[str]) -> List[List[Any]]:
    """The values of each rule, in the order of `keys`."""
    entries = [] if entries is None else entries
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entries, list) or not isinstance(entry, dict) or set(entry) != set(keys):
            raise InputError(
                f"--rules {path}: expected the keys {_listed(keys)} in each rule; "
                f"found {entry!r}. A whole file looks like\n{EXAMPLE}"
            )
    return [[entry[key] for key in keys] for entry in entries]


def _listed(words: Any) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def _transform(path: str, to: Any, sources: Any, steps: Any, reason: Any) -> Transform:
    names = [sources] if isinstance(sources, str) else sources
    if not isinstance(names, list) or not isinstance(steps, list):
        raise InputError(
            f"--rules {path}: transform {to}: expected a name or a list of names in `from` and a "
            f"list in `steps`; found {sources!r} and {steps!r}"
        )
    made = tuple(_step(path, to, step) for step in steps)
    return Transform(str(to), tuple(map(str, names)), made, str(reason or ""))


def _step(path: str, to: Any, step: Any) -> Step:
    """`{concat: 0}` and its like."""
    if isinstance(step, dict) and len(step) == 1:
        ((name, value),) = step.items()
        if name in _STEPS and _STEPS[name][0](value):
            return _STEPS[name][1](value)
    expected = "{concat: AXIS}, {unpermute_mod: HOSTS}, {reshape: [SIZES]}, {transpose: [AXES]} "
    raise InputError(
        f"--rules {path}: transform {to}: expected a step of {expected}or {{cast: DTYPE}} with "
        f"DTYPE of {', '.join(_DTYPES)}; found {step!r}"
    )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_ints(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_int, value))


_STEPS: Dict[str, Tuple[Callable[[Any], bool], Callable[[Any], Step]]] = {
    "concat": (_is_int, Concat),
    "unpermute_mod": (lambda value: _is_int(value) and value > 0, UnpermuteMod),
    "reshape": (_are_ints, lambda value: Reshape(tuple(value))),
    "transpose": (_are_ints, lambda value: Transpose(tuple(value))),
    "cast": (lambda value: value in _DTYPES, Cast),
}
