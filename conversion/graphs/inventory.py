"""A graph after surgery -> all that its target cannot run, or would run wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import AbstractSet, Any, Dict, List, Tuple

from batchinfer.errors import UnsupportedOpsError
from batchinfer.tf1 import tf
from conversion.graphs import kernels
from conversion.graphs.graph import every_node
from conversion.tf_internals import attr_value, op_def

TRAINING = "belongs to a training graph; convert a PREDICT graph or a SavedModel export instead"
EMBEDDING = "TPU embedding tables are not in a graph; the model has to be built again without them"
PYTHON = "calls Python code that is not in the graph; compute it before, or with TensorFlow's ops"
GROUPS = "is for groups of replicas that are not the graph's own; export with the graph's own"
REPLICAS = "runs {} replicas, which could not be told apart; export with one replica"

# Beginning of an op's name -> why it cannot stay. The first that fits is given.
REFUSED = (
    ("InfeedDequeue", TRAINING + ", or name its tensors with --input"),
    ("Infeed", TRAINING),
    ("Outfeed", TRAINING),
    ("TPUEmbedding", EMBEDDING),
    ("RecvTPUEmbedding", EMBEDDING),
    ("SendTPUEmbedding", EMBEDDING),
    ("EnqueueTPUEmbedding", EMBEDDING),
    ("LoadTPUEmbedding", EMBEDDING),
    ("RetrieveTPUEmbedding", EMBEDDING),
    ("ConfigureTPUEmbedding", EMBEDDING),
    ("CrossReplicaSum", GROUPS),
    ("TPUPartitionedCall", "is called inside a function that stays, such as a loop's body"),
    ("TPU", "only a TPU runs it, and something reads its result"),
    ("AllToAll", GROUPS),
    ("CollectivePermute", GROUPS),
    ("XlaSvd", "leaves the signs and order of vectors to the TPU; compute it before"),
    ("XlaSelfAdjointEig", "leaves the signs and order of vectors to the TPU; compute it before"),
    ("Xla", "has a kernel on a TPU only, and no equivalent for these shapes or attributes"),
    ("PyFunc", PYTHON),
    ("EagerPyFunc", PYTHON),
    ("TRTEngineOp", "holds an engine built for one GPU; convert the graph that it was built from"),
)
WRITES = ("Assign", "ScatterUpdate", "ScatterAdd", "ResourceApply", "ResourceScatter", "Apply")
BFLOAT16 = tf.bfloat16.as_datatype_enum
REFERENCE_VARIABLES = ("VariableV2", "Variable")
RANDOM = ("Random", "StatelessRandom", "StatelessTruncated", "StatelessMultinomial", "Truncated",
          "Parameterized", "Multinomial", "StatefulStandardNormal", "StatefulUniform")  # fmt: skip


@dataclass(frozen=True)
class Refusal:
    """An op that stands in the way.

    Attributes:
        op: its name.
        count: how many nodes of it.
        example: the name of one.
        why: what is wrong with it, and what to do where something can be done.
    """

    op: str
    count: int
    example: str
    why: str


def refusals(graph_def: Any, target: str = "gpu") -> Tuple[Refusal, ...]:
    """Look at every node of the graph and of its functions; one entry per op and reason.

    Args:
        target: "cpu" asks for a CPU kernel of each op; "gpu" for either, because a GPU session
            leaves the rest to the host (conversion/graphs/host_ops.py).
    """
    functions = {function.signature.name for function in graph_def.library.function}
    found: Dict[Tuple[str, str], List[str]] = {}
    for function, node in every_node(graph_def):
        why = why_refused(node, functions, bool(function), target)
        if why:
            where = f"{node.name} in function {function}" if function else node.name
            found.setdefault((node.op, why), []).append(where)
    return tuple(
        Refusal(op, len(names), names[0], why) for (op, why), names in sorted(found.items())
    )


def refuse(graph_def: Any, target: str = "gpu") -> None:
    """Raise unless the whole graph can be run, and run rightly.

    Raises:
        UnsupportedOpsError: with every op that stands in the way.
    """
    found = refusals(graph_def, target)
    if found:
        raise UnsupportedOpsError(message(found) + "\nNothing was written.")


def message(found: Tuple[Refusal, ...]) -> str:
    """All refusals as one text."""
    lines = [
        f"  {entry.op} x{entry.count}, such as {entry.example}\n      {entry.why}"
        for entry in found
    ]
    return (
        f"{len(found)} kind(s) of ops that the outputs need cannot run, or would run wrongly, "
        "on a CPU or GPU:\n" + "\n".join(lines)
    )


def why_refused(
    node: Any,
    functions: AbstractSet[str] = frozenset(),
    inside: bool = False,
    target: str = "gpu",
) -> str:
    """Why a node cannot stay in a predictor; "" when it can.

    Args:
        functions: names of the library's functions, which can be called as ops.
        inside: the node is in a function's body.
        target: see `refusals`.
    """
    if node.op in functions:
        return ""
    why = _wrong_in_a_predictor(node, inside)
    for prefix, reason in REFUSED:
        if not why and node.op.startswith(prefix):
            why = reason
    return why or _why_not_run(node, target)


def _wrong_in_a_predictor(node: Any, inside: bool) -> str:
    """Ops that run, but give other numbers than the model's owner expects."""
    if node.op in ("TPUReplicatedInput", "TPUReplicatedOutput"):
        attr = "N" if node.op == "TPUReplicatedInput" else "num_replicas"
        replicas = attr_value(node, attr).i
        return REPLICAS.format(replicas) if replicas > 1 else ""
    if node.op.startswith(RANDOM):
        return "gives other numbers in each run; this looks like a training graph (dropout?)"
    if node.op == "Bitcast" and BFLOAT16 in [attr_value(node, name).type for name in ("T", "type")]:
        return "reads the bits of a bfloat16, which is a float32 after conversion"
    if _trains_batch_norm(node):
        return "uses the statistics of its batch (is_training=True); " + TRAINING
    if node.op.startswith("DepthwiseConv2d") and max(attr_value(node, "dilations").list.i) > 1:
        return "TF 1.15 ignores `dilations` here without an error; use SpaceToBatchND around it"
    if node.op in REFERENCE_VARIABLES or node.op.startswith(WRITES):
        return "a variable is written while predicting; " + TRAINING
    if inside and node.op == "VarHandleOp":
        return "a variable inside a function cannot be matched with the checkpoint"
    return ""


def _trains_batch_norm(node: Any) -> bool:
    """The attribute is True where it was stripped: that is the OpDef's default."""
    if not node.op.startswith("FusedBatchNorm") or "Grad" in node.op:
        return False
    return bool(attr_value(node, "is_training").b)


def _why_not_run(node: Any, target: str) -> str:
    if op_def(node.op) is None:
        return f"TensorFlow {tf.__version__} does not know this op"
    if not kernels.has_kernels(node.op):
        return f"TensorFlow {tf.__version__} has no CPU or GPU kernel for this op"
    found = kernels.devices(node)
    if not found:
        return f"TensorFlow {tf.__version__} has no CPU or GPU kernel for {kernels.types(node)}"
    if target == "cpu" and "CPU" not in found:
        if kernels.channels_first(node):
            return "runs channels first (NCHW) on a GPU only; the target is a CPU"
        return (
            f"TensorFlow {tf.__version__} has a kernel for {kernels.types(node)} on a GPU only; "
            "the target is a CPU"
        )
    return ""
