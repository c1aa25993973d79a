"""Turn a TensorFlow 1.15 TPU artifact into a bundle that CPUs and GPUs score."""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):
    # The project's folder in place of jobs/, which would shadow the standard `inspect`.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from typing import Any, Dict

from conversion.options import PRECISIONS, ConvertOptions
from conversion.parity import DEFAULT_ATOL, DEFAULT_RTOL, Tolerance
from jobs.command import Parser, pairs, run


def artifact_flags(parser: Parser) -> None:
    """The flags that say what is converted; `inspect` takes the same."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a SavedModel folder, or the .meta file of a tpu.rewrite PREDICT graph",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PREFIX_OR_DIR",
        help="checkpoint; without it the SavedModel's own, or the newest beside the .meta",
    )
    parser.add_argument(
        "--input",
        action="append",
        metavar="NAME=TENSOR,...",
        help="inputs, such as image=image:0, comma separated or repeated; with --output, in "
        "place of a signature",
    )
    parser.add_argument(
        "--output",
        action="append",
        metavar="NAME=TENSOR,...",
        help="outputs, such as probabilities=output_0_shard_0:0",
    )
    parser.add_argument(
        "--signature", default="serving_default", metavar="NAME", help="signature_def to take"
    )
    parser.add_argument(
        "--rules", metavar="FILE.yaml", help="renames and drops of variables (docs/conversion.md)"
    )


def read(argv: Any = None) -> argparse.Namespace:
    parser = Parser(prog="convert.py", description=__doc__)
    artifact_flags(parser)
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder; must not exist")
    parser.add_argument(
        "--reference",
        metavar="FILE.npz",
        help="inputs/<name> and outputs/<name>: the bundle has to reproduce them",
    )
    parser.add_argument(
        "--atol",
        type=float,
        default=DEFAULT_ATOL,
        help="|found - expected| <= atol + rtol*|expected|",
    )
    parser.add_argument("--rtol", type=float, default=DEFAULT_RTOL, help="see --atol")
    parser.add_argument(
        "--allow-parity-failure",
        action="store_true",
        help="write the bundle even if it does not reproduce the reference",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="what bfloat16 becomes"
    )
    return parser.read(argv)


def call(flags: argparse.Namespace) -> Dict[str, Any]:
    from conversion.convert import convert

    result = convert(
        ConvertOptions(
            source=flags.source,
            out=flags.out,
            checkpoint=flags.checkpoint,
            inputs=pairs(flags.input, "--input"),
            outputs=pairs(flags.output, "--output"),
            signature=flags.signature,
            rules=flags.rules,
            reference=flags.reference,
            tolerance=Tolerance(flags.atol, flags.rtol),
            allow_parity_failure=flags.allow_parity_failure,
            precision=flags.precision,
        )
    )
    if result["parity"] is None:
        print(
            "warning: no --reference was given, so nothing proves this bundle; score.py will "
            "refuse it unless told otherwise",
            file=sys.stderr,
        )
    return result


if __name__ == "__main__":
    run(read, call)
