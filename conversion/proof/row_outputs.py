"""Outputs that do not come row by row: found before a signature is made of them."""

from __future__ import annotations

from typing import Any, List, Mapping, Sequence

from batchinfer.errors import InputError

WAY_OUT = (
    "Leave such an output out: name the others with --output NAME=TENSOR, and the inputs with "
    "--input NAME=TENSOR."
)


def refuse_without_rows(graph: Any, inputs: Sequence[str], outputs: Mapping[str, str]) -> None:
    """Raise unless some input is left and every output may have one row per input row.

    Args:
        graph: after surgery.
        inputs: names of the tensors that are fed; those of unused inputs are not there.
        outputs: tensor names by the names that users know.

    Raises:
        InputError: with every output that is not one row per input row.
    """
    if not inputs:
        raise InputError(
            f"no output depends on an input: {', '.join(sorted(outputs))}. Name other tensors with "
            "--input and --output."
        )
    fed = [graph.get_tensor_by_name(tensor).shape for tensor in inputs]
    sizes = {shape.as_list()[0] for shape in fed if shape.ndims} - {None}
    problems: List[str] = []
    for name, tensor in sorted(outputs.items()):
        found = graph.get_tensor_by_name(tensor)
        dims = found.shape.as_list() if found.shape.ndims is not None else [None]
        shown = ", ".join("?" if dim is None else str(dim) for dim in dims)
        what = f"output {name}: {found.dtype.base_dtype.name}[{shown}]"
        if not dims:
            problems.append(f"{what} is one value for all rows")
        elif dims[0] is not None and len(sizes) == 1 and dims[0] not in sizes:
            problems.append(f"{what} has {dims[0]} rows for a batch of {next(iter(sizes))}")
    if problems:
        raise InputError(
            f"{len(problems)} output(s) do not come row by row:\n  " + "\n  ".join(problems)
            + "\n" + WAY_OUT
        )  # fmt: skip
