"""Turn a TensorFlow 1.15 TPU artifact into a bundle that CPUs and GPUs score."""

from __future__ import annotations

import os
import sys

if __package__ in (None, ""):
    # The project's folder in place of jobs/, which would shadow the standard `inspect`.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import argparse
from typing import Any, Dict, Optional

from conversion.options import MODES, PRECISIONS, TARGETS, WEIGHTS, ConvertOptions, ModelCode
from conversion.proof.tolerance import DEFAULT_ATOL, DEFAULT_RTOL, Tolerance
from jobs.command import Parser, pairs, run


def artifact_flags(parser: Parser) -> None:
    """The flags that say what is converted; `inspect` takes the same."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a SavedModel folder, the .meta file of a tpu.rewrite PREDICT graph, or, with "
        "--model-fn, --build or --keras, a checkpoint",
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
        "--fix",
        action="append",
        metavar="NAME=VALUE,...",
        help="a constant in the place of a placeholder, such as is_training=false",
    )
    parser.add_argument(
        "--rules", metavar="FILE.yaml", help="renames and drops of variables (docs/conversion.md)"
    )
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help="the variables themselves, or their moving averages, where a checkpoint has both",
    )
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32", help="what bfloat16 becomes"
    )
    parser.add_argument(
        "--target", choices=TARGETS, default="gpu", help="where the bundle shall run"
    )
    code_flags(parser)


def code_flags(parser: Parser) -> None:
    """The flags that name code which builds the model again."""
    code = parser.add_argument_group("model code, in place of a graph")
    code.add_argument(
        "--model-fn", metavar="MODULE:FUNCTION", help="a model_fn, built again on one device"
    )
    code.add_argument(
        "--build", metavar="MODULE:FUNCTION", help="a function from features to outputs"
    )
    code.add_argument(
        "--keras", metavar="MODULE:FUNCTION", help="a function that returns a Keras model"
    )
    code.add_argument("--params", metavar="FILE.yaml", help="the model_fn's params")
    code.add_argument("--features", metavar="FILE.yaml", help="dtype and shape of each feature")
    code.add_argument(
        "--mode", choices=MODES, default="predict", help="whose outputs of the model_fn to take"
    )


def tolerance_flags(parser: Parser, default: str) -> None:
    """The flags that say how far a bundle may be from its reference; `verify` takes the same."""
    parser.add_argument(
        "--atol",
        type=float,
        help=f"|found - expected| <= atol + rtol*|expected| (default: {default}; "
        f"{DEFAULT_ATOL:g} with --rtol alone)",
    )
    parser.add_argument(
        "--rtol",
        type=float,
        help=f"see --atol (default: {default}; {DEFAULT_RTOL:g} with --atol alone)",
    )


def tolerance_of(flags: argparse.Namespace) -> Optional[Tolerance]:
    """What --atol and --rtol ask for; None when neither is given."""
    if flags.atol is None and flags.rtol is None:
        return None
    atol = DEFAULT_ATOL if flags.atol is None else flags.atol
    return Tolerance(atol, DEFAULT_RTOL if flags.rtol is None else flags.rtol)


def code_of(flags: argparse.Namespace) -> Optional[ModelCode]:
    """The model code that the flags name; None when a graph is converted.

    Raises:
        InputError: more than one of them, or their companions without any.
    """
    named = [flags.model_fn, flags.build, flags.keras, flags.params, flags.features]
    if not any(named) and flags.mode == "predict":
        return None
    return ModelCode(
        flags.model_fn or "",
        flags.build or "",
        flags.keras or "",
        flags.params,
        flags.features,
        flags.mode,
    )


def read(argv: Any = None) -> argparse.Namespace:
    parser = Parser(prog="convert.py", description=__doc__)
    artifact_flags(parser)
    parser.add_argument("--out", required=True, metavar="BUNDLE", help="folder; must not exist")
    parser.add_argument(
        "--reference",
        metavar="FILE.npz",
        help="inputs/<name> and outputs/<name>: the bundle has to reproduce them; outputs that are "
        "left out, or everything, the source itself computes; `none`: run nothing, prove nothing",
    )
    tolerance_flags(parser, "by the arithmetic compared, docs/conversion.md")
    parser.add_argument(
        "--allow-parity-failure",
        action="store_true",
        help="write the bundle even if it does not reproduce the reference",
    )
    parser.add_argument(
        "--keep-optimizer",
        action="store_true",
        help="write a checkpoint to go on training from beside the bundle",
    )
    parser.add_argument(
        "--no-optimize",
        dest="optimize",
        action="store_false",
        help="leave the graph as it comes out of the conversion (docs/conversion.md)",
    )
    return parser.read(argv)


def call(flags: argparse.Namespace) -> Dict[str, Any]:
    from conversion.convert import convert

    result = convert(
        ConvertOptions(
            source=flags.source,
            out=flags.out,
            checkpoint=flags.checkpoint,
            code=code_of(flags),
            inputs=pairs(flags.input, "--input"),
            outputs=pairs(flags.output, "--output"),
            signature=flags.signature,
            fixed=pairs(flags.fix, "--fix"),
            rules=flags.rules,
            reference=flags.reference,
            tolerance=tolerance_of(flags),
            allow_parity_failure=flags.allow_parity_failure,
            precision=flags.precision,
            weights=flags.weights,
            target=flags.target,
            keep_optimizer=flags.keep_optimizer,
            optimize=flags.optimize,
        )
    )
    report = result.pop("report")
    if report:
        print(report, file=sys.stderr)
    if result["optimised"]:
        print(f"graph: {result['optimised']}", file=sys.stderr)
    for warning in result["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    return result


if __name__ == "__main__":
    run(read, call)
