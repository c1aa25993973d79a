"""`--postprocess`: a user's function from the model's outputs to what is written, batch by batch.

It declares what it returns beside itself, because the columns of the output must be known before
the first batch and be the same in every process:

    def postprocess(outputs):
        ...
    postprocess.returns = {"label": "text[?]", "scores": "float32[?, 3]"}
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Mapping, Optional

import numpy as np

from batchinfer.errors import InputError
from batchinfer.hook_arrays import checked
from batchinfer.hooks import Hook
from batchinfer.signature import DTYPES, TensorSpec

SPEC = re.compile(r"(?P<dtype>\w+)\s*\[\s*\?(?P<dims>(\s*,\s*(\?|\d+))*)\s*\]")
TEXT = "text"
EXAMPLE = '{"label": "text[?]", "scores": "float32[?, 3]"}'


@dataclass(frozen=True)
class TextSpec(TensorSpec):
    """Texts that a hook gives: UTF-8, where the strings of a model are bytes."""

    def __str__(self) -> str:
        return super().__str__().replace(self.dtype, TEXT, 1)


@dataclass(frozen=True)
class Postprocess:
    """The hook, what it is given and what it gives; small and picklable.

    Attributes:
        takes: outputs of the model that are computed for it.
        returns: what is written, in this order, where nothing else is said.
    """

    hook: Hook
    takes: tuple[str, ...]
    returns: tuple[TensorSpec, ...]

    def run(self, outputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """What the hook gives for the outputs of n rows.

        Raises:
            ShardError: it raised, or returned something else than it declares.
        """
        given = {name: outputs[name] for name in self.takes}
        num_rows = len(given[self.takes[0]])
        with self.hook.blamed():
            found = self.hook.function(given)
        return checked(self.hook, found, self.returns, num_rows)


def declared(hook: Hook) -> tuple[TensorSpec, ...]:
    """What a hook says that it returns.

    Raises:
        InputError: it says nothing, or something that is no tensor; all are listed.
    """
    found = getattr(hook.function, "returns", None)
    if not isinstance(found, Mapping) or not found:
        raise InputError(
            f"{hook}: expected a line behind the function that says what it returns, such as\n"
            f"  {hook.name.partition(':')[2]}.returns = {EXAMPLE}\nfound {found!r}"
        )
    specs = {str(name): _spec(str(name), str(text)) for name, text in found.items()}
    wrong = [f"{name}: {found[name]!r}" for name, spec in specs.items() if spec is None]
    if wrong:
        raise InputError(
            f"{hook}: returns: expected tensors such as {EXAMPLE}, the rows first, of "
            f"{', '.join([TEXT, *DTYPES])}; found {'; '.join(wrong)}"
        )
    return tuple(spec for spec in specs.values() if spec is not None)


def _spec(name: str, text: str) -> Optional[TensorSpec]:
    found = SPEC.fullmatch(text.strip())
    if found is None or found.group("dtype") not in (TEXT, *DTYPES):
        return None
    dims = [dim.strip() for dim in found.group("dims").split(",")[1:]]
    shape = (None, *(None if dim == "?" else int(dim) for dim in dims))
    if found.group("dtype") == TEXT:
        return TextSpec(name, "", "string", shape)
    return TensorSpec(name, "", found.group("dtype"), shape)
