"""Each rewrite on a graph that fits on a screen."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.errors import ConversionError
from batchinfer.tf1 import tf
from conversion import surgery
from conversion.graphs import functions
from conversion.graphs.graph import GraphView
from conversion.surgery import (
    REWRITES,
    cross_replica,
    delete_bookkeeping,
    guarantee_const,
    inline_functions,
    operate,
    replicated_io,
    resource_variables,
    retype_bfloat16,
    scrub,
    sweep,
)
from tests.conversion.graphs import add_function, calls, const, graph, lines, node, run

F32, BF16 = tf.float32, tf.bfloat16


def test_the_entry_and_exit_of_one_replica_become_identities():
    before = graph(
        const("a", 1.0),
        node("in", "TPUReplicatedInput", "a", N=1, T=F32, is_mirrored_variable=False),
        node("out", "TPUReplicatedOutput", "in", num_replicas=1, T=F32),
    )
    after, count = replicated_io.replicated_io(GraphView(before))
    assert count == 2
    assert lines(after) == ["a = Const()", "in = Identity(a)", "out = Identity(in)"]
    assert sorted(after.node[1].attr) == ["T"]
    assert lines(before)[1] == "in = TPUReplicatedInput(a)"  # the rewrite is pure


def test_the_entry_of_two_replicas_stays_to_be_refused():
    before = graph(
        const("a", 1.0),
        node("in", "TPUReplicatedInput", "a", "a", N=2, T=F32),
        node("out", "TPUReplicatedOutput", "in", num_replicas=2, T=F32),
    )
    assert replicated_io.replicated_io(GraphView(before)) == (before, 0)


@pytest.mark.parametrize("groups, count", [([[0]], 1), ([], 1), ([[0, 1]], 0), ([[0], [1]], 0)])
def test_a_sum_over_one_replica_is_taken_out(groups, count):
    before = graph(
        const("a", 1.0),
        const("groups", groups, tf.int32),
        node("sum", "CrossReplicaSum", "a", "groups", T=F32),
    )
    after, found = cross_replica.cross_replica(GraphView(before))
    assert found == count
    assert lines(after)[2] == ("sum = Identity(a)" if count else "sum = CrossReplicaSum(a, groups)")


def test_guarantee_const_becomes_an_identity_that_keeps_its_control_edges():
    before = graph(const("a", 1.0), node("g", "GuaranteeConst", "a", "^a", T=F32))
    after, count = guarantee_const.guarantee_const(GraphView(before))
    assert (lines(after)[1], count) == ("g = Identity(a, ^a)", 1)


def test_bookkeeping_goes_and_the_nodes_that_waited_for_it_stay():
    before = graph(
        node("pivot", "NoOp"),
        node("meta", "TPUReplicateMetadata", "^pivot", num_replicas=1),
        const("a", 1.0, F32, "^meta", "^pivot"),
    )
    after, count = delete_bookkeeping.delete_bookkeeping(GraphView(before))
    assert (lines(after), count) == (["pivot = NoOp()", "a = Const(^pivot)"], 1)


def test_bookkeeping_of_which_a_tensor_is_read_stays_to_be_refused():
    before = graph(
        node("result", "TPUCompilationResult"),
        node("out", "Identity", "result", T=tf.string),
    )
    assert delete_bookkeeping.delete_bookkeeping(GraphView(before)) == (before, 0)


def test_bookkeeping_inside_a_function_goes_with_its_control_output():
    before = graph()
    body = [node("meta", "TPUReplicateMetadata"), node("y", "Relu", "x", "^meta", T=F32)]
    add_function(before, "f", ["x"], {"out": "y:activations:0"}, body, control=["meta"])
    view = GraphView(functions.flat(before))
    after, count = functions.in_each_body(view, delete_bookkeeping.delete_bookkeeping)
    function = after.library.function[0]
    assert count == 1
    assert [list(one.input) for one in function.node_def] == [["x"]]
    assert not function.control_ret and not function.signature.control_output


def nested_calls():
    """f(x) = g(x) twice; g has the TPU op; both through TPUPartitionedCall or by op name."""
    made = graph(
        const("a", 3.0),
        node("wait", "NoOp"),
        node("core", "TPUOrdinalSelector"),
        node(
            "call", "TPUPartitionedCall", "a", "core", "^wait", f=calls("f"), Tin=[F32], Tout=[F32]
        ),
        node("out", "Identity", "call", "^call", T=F32),
    )
    inner = [node("meta", "TPUReplicateMetadata"), node("y", "Neg", "x", "^meta", T=F32)]
    add_function(made, "g", ["x"], {"out": "y:y:0"}, inner, control=["meta"])
    first = node("first", "g", "x")
    second = node(
        "second", "StatefulPartitionedCall", "first:out:0", f=calls("g"), Tin=[F32], Tout=[F32]
    )
    parts = node("parts", "Split", "axis:output:0", "second:output:0", num_split=2, T=F32)
    axis = const("axis", 0, tf.int32)
    body = [first, second, axis, parts]
    add_function(made, "f", ["x"], {"out": "second:output:0"}, body)
    return made


def inlined(graph_def):
    return inline_functions.inline_functions(GraphView(functions.flat(graph_def)))


def test_nested_functions_are_inlined_under_the_names_of_their_calls():
    after, count = inlined(nested_calls())
    assert count == 3
    found = lines(after)
    assert "call/first/y = Neg(call/argument_0, ^call/first/meta)" in found
    assert "call/second/y = Neg(call/first/y, ^call/second/meta)" in found
    assert found[-4:] == [
        "call/argument_0 = Identity(a, ^wait)",
        "call/start = NoOp(^call/argument_0)",
        "out = Identity(call/second/y, ^call)",
        "call = NoOp(^call/second/y)",
    ]
    assert not [one for one in after.node if "Call" in one.op]


def test_inlined_functions_compute_what_the_calls_did():
    after, _ = operate(nested_calls(), ["out"])
    assert run(after, "out:0") == 3.0


def test_colocation_and_loop_frames_of_a_body_get_the_name_of_their_call():
    before = graph(const("a", 1.0), node("call", "f", "a"))
    enter = node("enter", "Enter", "x", "^meta", T=F32, frame_name=b"loop", _class=[b"loc:@meta"])
    body = [node("meta", "TPUReplicateMetadata"), enter]
    add_function(before, "f", ["x"], {"out": "enter:output:0"}, body)
    after, _ = inlined(before)
    made = after.node[2]
    assert made.attr["frame_name"].s == b"call/loop"
    assert list(made.attr["_class"].list.s) == [b"loc:@call/meta"]


def test_a_function_that_calls_itself_is_refused():
    before = graph(const("a", 1.0), node("call", "f", "a"))
    body = [node("meta", "TPUReplicateMetadata"), node("y", "f", "x")]
    add_function(before, "f", ["x"], {"out": "y:out:0"}, body)
    with pytest.raises(ConversionError, match="found one that calls itself"):
        inlined(before)


def test_a_call_of_a_function_that_is_not_there_is_refused():
    before = graph(node("core", "TPUOrdinalSelector"))
    before.node.add().CopyFrom(node("call", "TPUPartitionedCall", "core", f=calls("gone")))
    with pytest.raises(ConversionError, match="node call calls function gone, which is not in"):
        inlined(before)


def test_a_reference_variable_becomes_a_resource_that_is_read_once():
    before = graph(
        node("v", "VariableV2", dtype=F32, shape=tf.AttrValue(shape=tf.TensorShape([]).as_proto())),
        node("v/read", "Identity", "v", T=F32, _class=[b"loc:@v"]),
        node("out", "Neg", "v/read", "^v", T=F32),
    )
    after, count = resource_variables.resource_variables(GraphView(before))
    assert count == 1
    assert lines(after) == [
        "v = VarHandleOp()",
        "v/read = Identity(v/ReadVariableOp)",
        "out = Neg(v/read, ^v)",
        "v/ReadVariableOp = ReadVariableOp(v)",
    ]
    assert after.node[0].attr["shared_name"].s == b"v"


def test_a_reference_variable_that_is_written_stays_to_be_refused():
    before = graph(
        node("v", "VariableV2", dtype=F32),
        const("a", 1.0),
        node("set", "Assign", "v", "a", T=F32),
    )
    assert resource_variables.resource_variables(GraphView(before)) == (before, 0)


def test_bfloat16_becomes_float32_in_types_constants_and_functions():
    before = graph(
        const("a", 1.5, BF16),
        node("many", "IdentityN", "a", T=[BF16, tf.int32]),
        node("if", "If", "a", then_branch=calls("f")),
    )
    before.node[2].attr["then_branch"].func.attr["T"].type = BF16.as_datatype_enum
    function = add_function(before, "f", ["x"], {"out": "y:y:0"}, [node("y", "Neg", "x", T=BF16)])
    function.signature.input_arg[0].type = BF16.as_datatype_enum
    after, count = retype_bfloat16.retype_bfloat16(GraphView(before))
    assert count == 4
    assert tf.make_ndarray(after.node[0].attr["value"].tensor) == np.float32(1.5)
    assert "BFLOAT16" not in str(after)
    assert list(after.node[1].attr["T"].list.type) == [1, 3]  # DT_FLOAT, DT_INT32


def test_a_cast_that_has_lost_its_purpose_becomes_an_identity():
    before = graph(
        const("a", 1.5),
        node("down", "Cast", "a", SrcT=F32, DstT=BF16, Truncate=False),
        node("int", "Cast", "down", SrcT=BF16, DstT=tf.int32),
    )
    after, count = retype_bfloat16.retype_bfloat16(GraphView(before))
    assert count == 2
    assert lines(after)[1:] == ["down = Identity(a)", "int = Cast(down)"]
    assert run(after, ["down:0", "int:0"]) == [1.5, 1]


def test_a_constant_that_was_rounded_to_bfloat16_stays_rounded():
    before = graph(const("mean", [123.675, 2.0], BF16))
    after, _ = retype_bfloat16.retype_bfloat16(GraphView(before))
    values = tf.make_ndarray(after.node[0].attr["value"].tensor)
    assert (values.dtype, values.tolist()) == (np.float32, [123.5, 2.0])


def test_the_sweep_keeps_what_the_outputs_need_and_the_functions_it_calls():
    before = graph(const("a", 1.0), node("out", "f", "a"), node("save", "g", "a"))
    for name in ("f", "g"):
        add_function(before, name, ["x"], {"out": "y:y:0"}, [node("y", "Neg", "x", T=F32)])
    after, count = sweep.sweep(GraphView(before, ["out"]))
    assert (lines(after), count) == (["a = Const()", "out = f(a)"], 1)
    assert [one.signature.name for one in after.library.function] == ["f"]


def test_devices_and_hints_are_scrubbed_and_colocation_with_living_nodes_is_kept():
    one = node(
        "a", "NoOp", _class=[b"loc:@gone", b"loc:@b"], _tpu_replicate=b"c", _xla_scope=b"s",
        _output_shapes=[1], keep=True,
    )  # fmt: skip
    one.device = "/device:TPU_REPLICATED_CORE:0"
    after, count = scrub.scrub(GraphView(graph(one, node("b", "NoOp"))))
    assert count == 1
    assert after.node[0].device == ""
    assert sorted(after.node[0].attr) == ["_class", "keep"]
    assert list(after.node[0].attr["_class"].list.s) == [b"loc:@b"]


def test_the_graph_is_checked_after_each_rewrite(monkeypatch):
    def forget(view):
        return graph(*[one for one in view.graph_def.node if one.name != "a"]), 1

    broken = surgery.rewrite.Rewrite("forget", "loses a node", forget)
    monkeypatch.setattr(surgery, "REWRITES", (broken,) + REWRITES)
    before = graph(const("a", 1.0), node("out", "Identity", "a", T=F32))
    with pytest.raises(ConversionError, match="after rewrite `forget` the graph is broken"):
        operate(before, ["out"])


def test_every_rewrite_file_is_in_the_order_and_in_the_documentation():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    files = os.listdir(os.path.join(root, "conversion", "surgery"))
    names = {name[: -len(".py")] for name in files if name.endswith(".py")}
    assert names - {"__init__", "rewrite"} == {rewrite.name for rewrite in REWRITES}
    with open(os.path.join(root, "docs", "conversion.md"), encoding="utf-8") as file:
        text = file.read()
    for rewrite in REWRITES:
        assert f"| `{rewrite.name}` | {rewrite.does} |" in text
