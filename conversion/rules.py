"""A user's rules file (YAML) -> Rules."""

from __future__ import annotations

from typing import Any, List, Optional

import yaml

from batchinfer.errors import InputError
from conversion.names import Drop, Rename, Rules

EXAMPLE = """\
rename:
  - from: tpu_cnn_model/(.*)
    to: gpu_cnn_model/\\1
drop:
  - name: debug/.*
    reason: written by a hook, not part of the model
"""


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
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"cannot read --rules {path}: {error}") from error
    if not isinstance(fields, dict) or set(fields) - {"rename", "drop"}:
        raise InputError(f"--rules {path}: expected lists `rename` and `drop`, like\n{EXAMPLE}")
    renames = _entries(path, fields.get("rename"), ["from", "to"])
    drops = _entries(path, fields.get("drop"), ["name", "reason"])
    return Rules(
        renames=tuple(Rename(*entry) for entry in renames),
        drops=tuple(Drop(*entry) for entry in drops),
    )


def _entries(path: str, entries: Any, keys: List[str]) -> List[List[str]]:
    """The values of each rule, in the order of `keys`."""
    for entry in entries or []:
        if not isinstance(entry, dict) or sorted(entry) != sorted(keys):
            raise InputError(
                f"--rules {path}: expected the keys {' and '.join(keys)} in each rule; "
                f"found {entry!r}. A whole file looks like\n{EXAMPLE}"
            )
    return [[str(entry[key]) for key in keys] for entry in entries or []]
