"""Score a bundle's golden inputs on this machine and compare with its golden outputs."""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):
    # The project's folder in place of jobs/, which would shadow the standard `inspect`.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from typing import Any, Dict

from batchinfer.errors import EXIT_GAVE_UP, EXIT_OK
from jobs.command import Parser, run
from jobs.convert import tolerance_flags, tolerance_of


def read(argv: Any = None) -> argparse.Namespace:
    parser = Parser(prog="verify.py", description=__doc__)
    parser.add_argument("bundle", metavar="BUNDLE", help="folder of the bundle")
    tolerance_flags(parser, "that of the bundle's own report")
    parser.add_argument(
        "--batch-rows",
        type=int,
        metavar="N",
        help="rows per run of the model (default: all golden rows at once, or the fixed size)",
    )
    parser.add_argument(
        "--xla", action="store_true", default=False, help="as score.py --xla computes it"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser.read(argv)


def call(flags: argparse.Namespace) -> Dict[str, Any]:
    from conversion.proof.verify import verify

    report = verify(flags.bundle, tolerance_of(flags), flags.batch_rows, flags.xla)
    status = EXIT_OK if report.passed else EXIT_GAVE_UP
    if flags.json:
        return {**report.to_json(), "exit_status": status}
    return {"text": report.text(), "exit_status": status}


if __name__ == "__main__":
    run(read, call)
