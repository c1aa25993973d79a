"""Show what a TPU artifact holds and what convert.py would do with it; writes nothing."""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):
    # The project's folder in place of jobs/, where this file would shadow the standard `inspect`.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
import tempfile
from typing import Any, Dict

from conversion.options import ConvertOptions
from jobs.command import Parser, pairs, run
from jobs.convert import artifact_flags, code_of


def read(argv: Any = None) -> argparse.Namespace:
    parser = Parser(prog="inspect.py", description=__doc__)
    artifact_flags(parser)
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    return parser.read(argv)


def call(flags: argparse.Namespace) -> Dict[str, Any]:
    from conversion.convert import find_source
    from conversion.inspection import inspect
    from conversion.inspection_text import as_text
    from conversion.lowering import Request
    from conversion.weights.rules import read_rules

    options = ConvertOptions(
        flags.source,
        out="",
        checkpoint=flags.checkpoint,
        code=code_of(flags),
        fixed=pairs(flags.fix, "--fix"),
    )
    request = Request(
        pairs(flags.input, "--input"),
        pairs(flags.output, "--output"),
        flags.signature,
        read_rules(flags.rules),
        flags.precision,
        flags.weights,
        flags.target,
    )
    with tempfile.TemporaryDirectory(prefix="batchinfer-") as scratch:
        found = inspect(find_source(options, scratch), request, flags.rules, options.fixed)
    return found.to_json() if flags.json else {"text": as_text(found)}


if __name__ == "__main__":
    run(read, call)
