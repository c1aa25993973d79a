"""Kinds of ops: what gives the same in every run, on every machine, and at what cost."""

from __future__ import annotations

from typing import Any

from batchinfer.tf1 import tf
from conversion.tf_internals import attr_value

SOURCES = frozenset(("Const", "VarHandleOp", "ReadVariableOp"))
# Ops that give their input's values in another shape, for nothing.
FREE = frozenset(("Identity", "Reshape", "Squeeze", "ExpandDims", "StopGradient"))
# Ops that always give the same of the same, and neither fail nor wait: what is not here stays.
PURE = SOURCES | FREE | frozenset(
    ("Abs", "Add", "AddN", "AddV2", "Cast", "ConcatV2", "Div", "Exp", "Fill", "GatherV2", "Log",
     "Log1p", "Max", "Maximum", "Min", "Minimum", "Mul", "Neg", "Pack", "Pad", "PadV2", "Pow",
     "RealDiv", "Reciprocal", "Relu", "ReverseV2", "Rsqrt", "Sigmoid", "Slice", "Split", "SplitV",
     "Sqrt", "Square", "SquaredDifference", "StridedSlice", "Sub", "Tanh", "Tile", "Transpose",
     "Unpack", "ZerosLike", "OnesLike")
)  # fmt: skip
# Ops that add up many numbers, in an order that depends on how many threads share them: of floats
# the last bits differ from machine to machine, and the same source has to give the same bundle.
SUMMING = frozenset(("BatchMatMul", "BatchMatMulV2", "MatMul", "Mean", "Prod", "Softmax", "Sum"))


def is_pure(node: Any) -> bool:
    """Whether it may be computed ahead. Whole numbers add up to the same in every order."""
    if node.op in SUMMING:
        return bool(tf.as_dtype(attr_value(node, "T").type).is_integer)
    return node.op in PURE
