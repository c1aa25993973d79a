"""Which Parquet columns feed which inputs, which are kept, and what the output's columns are."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

from batchinfer.arrow import pa
from batchinfer.columns import type_problem
from batchinfer.errors import SchemaError
from batchinfer.hooks import Hook
from batchinfer.kept import unify
from batchinfer.outputs import Outputs
from batchinfer.preprocess import Preprocess
from batchinfer.rejects import REJECTS_COLUMNS
from batchinfer.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Columns:
    """Which columns are read, and what becomes of them.

    Attributes:
        signature: of the model.
        by_input: input name -> column name, complete.
        kept: schema of the columns that go to the output.
        chosen: what is written of the model's outputs; None is all of them.
        preprocess: the hook that makes the inputs, in place of `by_input`.
    """

    signature: Signature
    by_input: Mapping[str, str]
    kept: pa.Schema
    chosen: Optional[Outputs] = None
    preprocess: Optional[Preprocess] = None

    @property
    def outputs(self) -> Outputs:
        return self.chosen or Outputs(self.signature.outputs)

    @property
    def fed(self) -> tuple[TensorSpec, ...]:
        """The inputs that are fed from a column of theirs: all, or none where a hook makes them."""
        return () if self.preprocess else self.signature.inputs

    @property
    def hooks(self) -> list[Hook]:
        both = (self.preprocess, self.outputs.postprocess)
        return [one.hook for one in both if one is not None]

    @property
    def names(self) -> list[str]:
        """Every column that is read, once."""
        wanted = self.preprocess.columns if self.preprocess else self.by_input.values()
        return list(dict.fromkeys([*wanted, *self.kept.names]))

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([*self.kept, *self.outputs.schema])

    def problem(self, schema: pa.Schema) -> Optional[str]:
        """Why a file with this schema cannot be scored, everything at once; None when it can.

        The types of kept columns are no matter of one file; see `kept.unify`.
        """
        twice = [name for name in self.names if schema.names.count(name) > 1]
        lines = [f"{schema.names.count(name)} columns named {name!r}" for name in twice]
        if self.preprocess is not None:
            wanted, hook = self.preprocess.columns, self.preprocess.hook
            lines += [
                f"no column {name!r} for {hook}" for name in wanted if name not in schema.names
            ]
        for spec in self.fed:
            name = self.by_input[spec.name]
            if name not in schema.names:
                lines.append(f"no column {name!r} for input {spec}")
            elif name not in twice:
                problem = type_problem(schema.field(name).type, spec)
                if problem:
                    lines.append(f"column {name!r} is {schema.field(name).type}: {problem}")
        lines += [
            f"no column {name!r} to keep" for name in self.kept.names if name not in schema.names
        ]
        return "; ".join(lines) or None


def choose_columns(
    signature: Signature,
    columns: Mapping[str, str],
    keep: Sequence[str],
    files: Sequence[tuple[str, pa.Schema]],
    outputs: Optional[Outputs] = None,
    preprocess: Optional[Preprocess] = None,
) -> Columns:
    """Hold the user's choice against the model and the files.

    A file that does not fit is that file's problem, unless none does.

    Args:
        columns: input name -> column name, where they differ.
        keep: columns that go to the output.
        files: URL and schema of every readable file, in input order; at least one.
        outputs: what is written of the model's outputs; None is all of them.
        preprocess: the hook that makes the inputs, if there is one.

    Raises:
        SchemaError: an unknown input, a kept column with the name of what tells why a row was
            rejected, columns missing, there twice or not fitting in every file (the first is
            shown), or kept columns whose types differ too much; all are listed.
    """
    by_schema = _by_schema(files)
    kept = pa.schema([pa.field(name, pa.null()) for name in keep])
    by_input = complete(signature, columns)
    chosen = Columns(signature, by_input, kept, outputs, preprocess)
    fitting = {s: urls for s, urls in by_schema.items() if chosen.problem(s) is None}
    problems = _choice_problems(signature, columns, keep)
    url, schema = files[0]
    if not fitting:
        problems += str(chosen.problem(schema)).split("; ")
    if problems:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise SchemaError(
            f"{url}: the data does not fit the model:\n  "
            + "\n  ".join(problems)
            + f"\nthe model takes  {'; '.join(map(str, signature.inputs))}"
            + f"\nthe file has     {found}"
            + "\nName a column for an input with --map INPUT=COLUMN, kept columns with --keep."
        )
    return dataclasses.replace(chosen, kept=unify(keep, fitting))


def _by_schema(files: Sequence[tuple[str, pa.Schema]]) -> dict[pa.Schema, list[str]]:
    """URLs by schema. One object's are put together first: to hash a schema takes 12 us."""
    by_object: dict[int, tuple[pa.Schema, list[str]]] = {}
    for url, schema in files:
        by_object.setdefault(id(schema), (schema, []))[1].append(url)
    by_schema: dict[pa.Schema, list[str]] = {}
    for schema, urls in by_object.values():
        by_schema.setdefault(schema, []).extend(urls)
    return by_schema


def complete(signature: Signature, columns: Mapping[str, str]) -> dict[str, str]:
    """Input name -> column name for every input; they are the same where nothing else is said."""
    return {spec.name: columns.get(spec.name, spec.name) for spec in signature.inputs}


def _choice_problems(
    signature: Signature, columns: Mapping[str, str], keep: Sequence[str]
) -> list[str]:
    """What is wrong with the choice whatever the files hold."""
    inputs = [spec.name for spec in signature.inputs]
    return [
        *(
            f"the model has no input {name!r} (it has {', '.join(inputs)})"
            for name in columns
            if name not in inputs
        ),
        *(
            f"kept column {name!r} has the name of a column of the rejects"
            for name in keep
            if name in REJECTS_COLUMNS
        ),
    ]
