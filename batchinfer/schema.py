"""Which Parquet columns feed which inputs, which are kept, and what the output's columns are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional, Sequence

from batchinfer.arrow import pa
from batchinfer.columns import type_problem
from batchinfer.errors import SchemaError
from batchinfer.rejects import REJECTS_COLUMNS
from batchinfer.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Columns:
    """Which columns are read, and what becomes of them.

    Attributes:
        signature: of the model.
        by_input: input name -> column name, complete.
        kept: schema of the columns that go to the output.
    """

    signature: Signature
    by_input: Mapping[str, str]
    kept: pa.Schema

    @property
    def names(self) -> list[str]:
        """Every column that is read, once."""
        return list(dict.fromkeys([*self.by_input.values(), *self.kept.names]))

    @property
    def output_schema(self) -> pa.Schema:
        fields = [pa.field(spec.name, output_type(spec)) for spec in self.signature.outputs]
        return pa.schema([*self.kept, *fields])

    def problem(self, schema: pa.Schema) -> Optional[str]:
        """Why a file with this schema cannot be scored, everything at once; None when it can."""
        twice = [name for name in self.names if schema.names.count(name) > 1]
        lines = [f"{schema.names.count(name)} columns named {name!r}" for name in twice]
        for spec in self.signature.inputs:
            name = self.by_input[spec.name]
            if name not in schema.names:
                lines.append(f"no column {name!r} for input {spec}")
            elif name not in twice:
                problem = type_problem(schema.field(name).type, spec)
                if problem:
                    lines.append(f"column {name!r} is {schema.field(name).type}: {problem}")
        for kept in self.kept:
            if kept.name not in schema.names:
                lines.append(f"no column {kept.name!r} to keep")
            elif kept.name not in twice and plain(schema.field(kept.name).type) != kept.type:
                found = schema.field(kept.name).type
                lines.append(
                    f"column {kept.name!r} is {found}, in the first file it is {kept.type}"
                )
        return "; ".join(lines) or None


def choose_columns(
    signature: Signature, columns: Mapping[str, str], keep: Sequence[str], schema: pa.Schema
) -> Columns:
    """Hold the user's choice against the model and the first file.

    Raises:
        SchemaError: an unknown input, a column that is missing, there twice or does not fit,
            a kept column with the name of an output or of what tells why a row was rejected;
            all are listed.
    """
    inputs = [spec.name for spec in signature.inputs]
    problems = [
        f"the model has no input {name!r} (it has {', '.join(inputs)})"
        for name in columns
        if name not in inputs
    ]
    outputs = {spec.name for spec in signature.outputs}
    problems += [
        f"kept column {name!r} has the name of an output" for name in keep if name in outputs
    ]
    problems += [
        f"kept column {name!r} has the name of a column of the rejects"
        for name in keep
        if name in REJECTS_COLUMNS
    ]
    types = {field.name: plain(field.type) for field in schema}
    fields = [pa.field(name, types.get(name, pa.null())) for name in keep]
    chosen = Columns(
        signature,
        {name: columns.get(name, name) for name in inputs},
        pa.schema(fields),
    )
    problems += filter(None, [chosen.problem(schema)])
    if problems:
        found = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise SchemaError(
            "the data does not fit the model:\n  "
            + "\n  ".join("; ".join(problems).split("; "))
            + f"\nthe model takes  {'; '.join(map(str, signature.inputs))}"
            + f"\nthe file has     {found}"
            + "\nName a column for an input with --map INPUT=COLUMN, kept columns with --keep."
        )
    return chosen


def plain(column: pa.DataType) -> pa.DataType:
    """The type without dictionary encoding, which differs from file to file and says nothing."""
    return column.value_type if pa.types.is_dictionary(column) else column


def output_type(spec: TensorSpec) -> pa.DataType:
    """The Arrow type of an output column: a value, or one fixed-size list per dimension."""
    # Parquet has no float16; numpy's own names are Arrow's for all others.
    names = {"string": pa.binary(), "float16": pa.float32()}
    leaf = names.get(spec.dtype) or pa.from_numpy_dtype(spec.numpy_dtype)
    for dim in reversed(spec.row_shape):
        leaf = pa.list_(leaf) if dim is None else pa.list_(leaf, dim)
    return leaf
