"""What is refused, and how it is said."""

from __future__ import annotations

import pytest

from batchinfer.errors import UnsupportedOpsError
from batchinfer.tf1 import tf
from conversion.graphs.host_ops import host_ops
from conversion.graphs.inventory import refuse, why_refused
from tests.conversion.graphs import add_function, const, graph, node

F32, BF16 = tf.float32, tf.bfloat16


@pytest.mark.parametrize(
    "one",
    [
        node("x", "Placeholder", dtype=F32),
        node("x", "Conv2D", T=F32, dilations=[1, 2, 2, 1]),  # its kernel respects dilations
        node("x", "DepthwiseConv2dNative", T=F32, dilations=[1, 1, 1, 1]),
        node("x", "DepthwiseConv2dNative", T=F32),
        node("x", "FusedBatchNormV3", T=F32, U=F32, is_training=False),
        node("x", "VarHandleOp", dtype=F32),
        node("x", "HashTableV2", key_dtype=tf.string, value_dtype=tf.int64),
    ],
)
def test_what_runs_rightly_stays(one):
    assert why_refused(one) == ""


@pytest.mark.parametrize(
    "one, why",
    [
        (node("x", "InfeedDequeueTuple"), "belongs to a training graph"),
        (node("x", "OutfeedEnqueueTuple"), "belongs to a training graph"),
        (
            node("x", "TPUReplicatedInput", N=8, T=F32),
            "runs 8 replicas, which could not be told apart",
        ),
        (node("x", "TPUReplicatedOutput", num_replicas=2, T=F32), "runs 2 replicas"),
        (
            node("x", "CrossReplicaSum", T=F32),
            "is for groups of replicas that are not the graph's own",
        ),
        (node("x", "TPUEmbeddingActivations"), "TPU embedding tables are not in a graph"),
        (node("x", "XlaEinsum", T=F32), "has a kernel on a TPU only"),
        (node("x", "TPUCompilationResult"), "only a TPU runs it"),
        (node("x", "RandomUniform", T=tf.int32, dtype=F32), "gives other numbers in each run"),
        (node("x", "FusedBatchNorm", T=F32, is_training=True), "uses the statistics of its batch"),
        (node("x", "FusedBatchNormV3", T=F32, U=F32), "uses the statistics"),  # default: True
        (node("x", "DepthwiseConv2dNative", T=F32, dilations=[1, 2, 2, 1]), "TF 1.15 ignores"),
        (node("x", "AssignVariableOp", dtype=F32), "a variable is written while predicting"),
        (node("x", "VariableV2", dtype=F32), "a variable is written while predicting"),
        (node("x", "Bitcast", T=BF16, type=tf.uint16), "reads the bits of a bfloat16"),
        (node("x", "Conv2D", T=BF16), "has no CPU or GPU kernel for T=bfloat16"),
        (node("x", "NoSuchOp"), "does not know this op"),
        (node("x", "PyFunc", Tin=[F32], Tout=[F32]), "calls Python code that is not in the graph"),
        (node("x", "TRTEngineOp"), "holds an engine built for one GPU"),
    ],
)
def test_what_cannot_run_or_would_run_wrongly_is_refused_with_the_reason(one, why):
    assert why in why_refused(one)


@pytest.mark.parametrize(
    "one, why",
    [
        (node("x", "Conv2D", T=F32, data_format=b"NCHW"), "runs channels first (NCHW) on a GPU"),
        (node("x", "MaxPool", T=F32, data_format=b"NCHW"), "runs channels first (NCHW) on a GPU"),
        (node("x", "FusedBatchNorm", T=F32, data_format=b"NCHW", is_training=False), ""),
        (node("x", "Conv2D", T=F32), ""),
        (node("x", "CudnnRNNV2", T=F32), "has a kernel for T=float32 on a GPU only"),
        (node("x", "GuaranteeConst", T=F32), ""),
    ],
)
def test_a_cpu_target_asks_for_a_cpu_kernel(one, why):
    found = why_refused(one, target="cpu")
    assert found.startswith(why) or why in found
    assert bool(found) == bool(why)
    assert why_refused(one, target="gpu") == ""


def test_what_a_gpu_leaves_to_the_host_is_counted():
    looked_at = graph(
        node("x", "Placeholder", dtype=F32),
        node("table", "HashTableV2", key_dtype=tf.string, value_dtype=tf.int64),
        node("boxes", "NonMaxSuppressionV4", T=F32),
        node("boxes_1", "NonMaxSuppressionV4", T=F32),
        node("half", "BatchMatMulV2", T=BF16),
        node("y", "Relu", "x", T=F32),
    )
    assert host_ops(looked_at, "cpu") == ()
    found = host_ops(looked_at, "gpu")
    assert [(one.op, one.count) for one in found] == [("NonMaxSuppressionV4", 2)]
    assert found[0].why == "no GPU kernel for T=float32"


def test_one_error_lists_every_op_with_its_count_and_an_example():
    looked_at = graph(
        const("a", 1.0),
        node("noise", "RandomUniform", dtype=F32, T=tf.int32),
        node("noise_1", "RandomUniform", dtype=F32, T=tf.int32),
        node("call", "f", "a"),
    )
    add_function(looked_at, "f", ["x"], {"out": "y:y:0"}, [node("y", "XlaDot", "x", T=F32)])
    with pytest.raises(UnsupportedOpsError) as error:
        refuse(looked_at)
    assert str(error.value) == (
        "2 kind(s) of ops that the outputs need cannot run, or would run wrongly, "
        "on a CPU or GPU:\n"
        "  RandomUniform x2, such as noise\n"
        "      gives other numbers in each run; this looks like a training graph (dropout?)\n"
        "  XlaDot x1, such as y in function f\n"
        "      has a kernel on a TPU only, and no equivalent for these shapes or attributes\n"
        "Nothing was written."
    )
