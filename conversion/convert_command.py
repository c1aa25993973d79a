"""What was inspected -> the command that converts it, as one would type it."""

from __future__ import annotations

import shlex
from typing import Mapping, Optional

from conversion.graphs.candidates import flags_for
from conversion.graphs.tensors import Tensors
from conversion.lowering import Request
from conversion.source import Source


def command_for(
    source: Source,
    request: Request,
    chosen: Tensors,
    rules_path: Optional[str],
    fixed: Mapping[str, str],
) -> str:
    """The conversion with the flags that were given, and with those that it needs besides."""
    words = ["python", "jobs/convert.py", source.path]
    if source.kind == "meta_graph" and source.checkpoint:
        words += ["--checkpoint", source.checkpoint]
    words += source.code.flags if source.code else []
    if request.inputs or not source.meta_graph.signature_def:
        words += flags_for(chosen.inputs, chosen.outputs).split(" ")
    plain = Request({}, {})
    for name in ("signature", "weights", "precision", "target"):
        if getattr(request, name) != getattr(plain, name):
            words += [f"--{name}", getattr(request, name)]
    words += [word for name, value in fixed.items() for word in ("--fix", f"{name}={value}")]
    if rules_path:
        words += ["--rules", rules_path]
    return " ".join(shlex.quote(word) for word in words + ["--out", "BUNDLE"])
