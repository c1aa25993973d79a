"""Functions: inlined where something calls them, rewritten in place where they stay."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import ConversionError
from batchinfer.signature import Signature, TensorSpec
from batchinfer.tf1 import tf
from conversion.graphs import functions
from conversion.graphs.graph import GraphView
from conversion.saved_model import write_saved_model
from conversion.surgery import operate
from conversion.tf_internals import SavedModel
from tests.conversion.graphs import add_function, calls, const, graph, lines, node, run

F32 = tf.float32


def converted(graph_def, fetch="y"):
    after, _ = operate(graph_def, [fetch])
    assert "Call" not in " ".join(one.op for one in after.node)
    return after


def built(build):
    """The GraphDef of a function of a placeholder `x` (4,) that gives `y`."""
    with tf.Graph().as_default() as made:
        x = tf.placeholder(F32, [4], name="x")
        tf.identity(build(x), name="y")
        return made.as_graph_def()


X = np.array([1, 2, 3, 4], np.float32)


def computed(build, x=X):
    return run(converted(built(build)), "y:0", {"x:0": x}).tolist()


def test_edges_inside_functions_are_flat_and_named_again():
    before = graph(const("a", 1.0), node("call", "f", "a"))
    body = [
        node("axis", "Const", dtype=tf.int32, value=tf.make_tensor_proto(0)),
        node("parts", "Split", "axis:output:0", "x", num_split=2, T=F32),
        node("moments", "FusedBatchNorm", "x", "x", "x", "x", "x", "^parts", T=F32),
        node("y", "Add", "parts:output:1", "moments:batch_variance:0", T=F32),
    ]
    add_function(before, "f", ["x"], {"out": "y:z:0", "same": "x"}, body)
    flat = functions.flat(before).library.function[0]
    assert [list(one.input) for one in flat.node_def[1:]] == [
        ["axis", "x"],
        ["x", "x", "x", "x", "x", "^parts"],
        ["parts:1", "moments:2"],
    ]
    assert dict(flat.ret) == {"out": "y", "same": "x"}
    assert functions.named(functions.flat(before)) == before


def test_a_function_of_an_unknown_op_is_refused():
    before = graph()
    add_function(before, "f", ["x"], {"out": "y:y:0"}, [node("y", "NoSuchOp", "x")])
    with pytest.raises(ConversionError, match="op NoSuchOp of node y is not known to TensorFlow"):
        functions.flat(before)


def test_arguments_that_stand_for_several_tensors_are_refused():
    before = graph()
    function = add_function(before, "f", ["x"], {"out": "x"}, [])
    function.signature.input_arg[0].number_attr = "N"
    with pytest.raises(ConversionError, match="stand for several tensors: x"):
        functions.flat(before)


def test_a_function_called_twice_is_there_twice():
    twice = tf.function(lambda v: v * 2.0 + 1.0)
    after = converted(built(lambda x: twice(twice(x))))
    assert [one.op for one in after.node].count("Mul") == 2
    assert not after.library.function
    assert run(after, "y:0", {"x:0": X}).tolist() == [7, 11, 15, 19]


@pytest.mark.parametrize("noinline", [False, True])
def test_functions_of_tf_1_are_inlined(noinline):
    double = defun(noinline)(lambda v: v * 2.0)
    assert computed(lambda x: double(double(x))) == [4, 8, 12, 16]


def defun(noinline):
    """A function of TF 1's API, of one float tensor."""
    from tensorflow.python.framework import function

    def named(body):
        body.__name__ = "body"  # <lambda> is no name for a node
        return function.Defun(F32, noinline=noinline)(body)

    return named


def test_variables_that_functions_capture_stay_one():
    def build(x):
        weight = tf.get_variable("w", [4], use_resource=True)
        scaled = tf.function(lambda v: v * weight)
        return scaled(scaled(x))

    after = converted(built(build))
    assert [one.name for one in after.node if one.op == "VarHandleOp"] == ["w"]


def test_variables_that_live_inside_of_a_function_keep_their_names():
    before = graph(
        const("a", 1.0),
        node("one", "f", "a"),
        node("two", "f", "one"),
        node("y", "Identity", "two", T=F32),
    )
    scalar = tf.AttrValue(shape=tf.TensorShape([]).as_proto())
    body = [
        node("v", "VariableV2", dtype=F32, shape=scalar),
        node("w", "VarHandleOp", dtype=F32, shape=scalar, shared_name=b"scope/w"),
        node("read", "ReadVariableOp", "w:resource:0", dtype=F32),
        node("z", "Mul", "v:ref:0", "read:value:0", T=F32),
        node("out", "Mul", "x", "z:z:0", T=F32),
    ]
    add_function(before, "f", ["x"], {"out": "out:z:0"}, body)
    after = converted(before)
    shared = [one.attr["shared_name"].s for one in after.node if one.op == "VarHandleOp"]
    assert sorted(shared) == [b"scope/w", b"scope/w", b"v", b"v"]


def test_a_call_runs_the_asserts_of_its_function():
    def build(x):
        def checked(v):
            with tf.control_dependencies([tf.debugging.assert_less(v, 4.0)]):
                return tf.identity(v)

        def forgotten(v):
            tf.debugging.Assert(tf.reduce_max(v) < 4.0, [v])
            return v * 2.0

        return defun(False)(forgotten)(tf.function(checked)(x / 2.0) * 2.0)

    after = converted(built(build))
    assert run(after, "y:0", {"x:0": X - 1}).tolist() == [0, 2, 4, 6]
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run(after, "y:0", {"x:0": X})


@pytest.mark.parametrize("x, expected", [(X, [5, 5, 5, 5]), (-X, [-1, -2, -3, -4])])
def test_a_call_in_a_branch_that_is_not_taken_gives_nothing(x, expected):
    fives = defun(False)(lambda v: tf.constant([5.0] * 4))
    found = computed(lambda x: tf.cond(tf.reduce_sum(x) > 0, lambda: fives(x), lambda: x), x)
    assert found == expected


def test_a_call_in_a_loop_runs_in_the_loops_frame():
    add_one = tf.function(lambda v: v + tf.constant([1.0, 1.0, 1.0, 1.0]))

    def build(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, v: (i + 1, add_one(v)), [0, x])[1]

    assert computed(build) == [4, 5, 6, 7]


def test_two_calls_of_a_function_with_a_loop_go_round_apart():
    def loop(v):
        return tf.while_loop(lambda w: tf.reduce_max(w) < 100.0, lambda w: w * 2.0, [v])

    one = defun(False)(loop)
    assert computed(lambda x: one(x) + one(x * 3.0)) == [32 + 48, 64 + 96, 96 + 144, 128 + 192]


def test_a_result_waits_for_no_effect_that_may_not_come():
    """In the branch of a branch, and behind a loop of a loop that nothing reads."""
    from tensorflow.python.framework import function

    def checked(x):
        with tf.control_dependencies([tf.Assert(x[0] > 0, [x])]):
            return x * 2

    @function.Defun(F32)
    def looped(a):
        tf.cond(a[0] > 9, lambda: tf.cond(a[0] > 99, lambda: checked(a), lambda: a), lambda: a)

        def outer(i, x):
            tf.while_loop(lambda j, _: j < 2, lambda j, y: (j + 1, checked(y)), [0, x])
            return i + 1, x + 1

        return tf.while_loop(lambda i, _: i < 2, outer, [0, a])[1]

    assert computed(looped) == [3.0, 4.0, 5.0, 6.0]


def test_a_call_that_takes_no_tensor_waits_for_what_it_waited_for():
    before = graph(
        const("bad", False, tf.bool),
        const("text", "stop", tf.string),
        node("assert", "Assert", "bad", "text", T=[tf.string]),
        node("call", "f", "^assert"),
        node("y", "Identity", "call", T=F32),
    )
    add_function(before, "f", [], {"out": "c:output:0"}, [const("c", 2.0)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run(converted(before), "y:0")


def test_a_body_does_not_take_a_name_that_is_there():
    before = graph(
        const("a", 1.0),
        const("call/z", 5.0),
        node("call", "f", "a"),
        node("y", "Add", "call", "call/z", T=F32),
    )
    add_function(before, "f", ["x"], {"out": "z:y:0"}, [node("z", "Neg", "x", T=F32)])
    after = converted(before)
    assert "y = Add(call/body_1/z, call/z)" in lines(after)
    assert run(after, "y:0") == 4.0


def test_a_result_may_be_an_argument_that_another_call_gave():
    before = graph(
        const("a", 3.0),
        node("one", "f", "a"),
        node("two", "f", "one", "^one"),
        node("y", "Identity", "two", "^two", T=F32),
    )
    add_function(before, "f", ["x"], {"out": "x"}, [])
    assert run(converted(before), "y:0") == 3.0


def test_types_that_a_call_gives_are_put_in():
    before = graph(const("a", 3, tf.int32), node("call", "f", "a", T=tf.int32))
    before.node.add().CopyFrom(node("y", "Identity", "call", T=tf.int32))
    function = add_function(before, "f", ["x"], {"out": "z:y:0"}, [node("z", "Neg", "x")])
    for argument in [*function.signature.input_arg, *function.signature.output_arg]:
        argument.type_attr, argument.type = "T", 0
    function.signature.attr.add(name="T", type="type")
    function.node_def[0].attr["T"].placeholder = "T"
    assert run(converted(before), "y:0") == -3


def test_a_call_with_too_few_tensors_is_refused():
    before = graph(const("a", 3.0), node("y", "f", "a"))
    add_function(before, "f", ["x", "z"], {"out": "x"}, [])
    with pytest.raises(ConversionError, match="gives its function 1 tensors; expected 2"):
        operate(before, ["y"])


@pytest.mark.parametrize("op, attr, types, device", [
    ("PartitionedCall", "f", ["Tin", "Tout"], []),
    ("StatefulPartitionedCall", "f", ["Tin", "Tout"], []),
    ("RemoteCall", "f", ["Tin", "Tout"], ["cpu"]),
    ("XlaLaunch", "function", ["Targs", "Tresults"], []),
])  # fmt: skip
def test_every_kind_of_call_is_inlined(op, attr, types, device):
    attrs = {attr: calls("f"), **{name: [F32] for name in types}}
    before = graph(
        const("a", 3.0),
        const("cpu", "/cpu:0", tf.string),
        node("y", op, *device, "a", **attrs),
    )
    add_function(before, "f", ["x"], {"out": "z:y:0"}, [node("z", "Neg", "x", T=F32)])
    before.node.add().CopyFrom(node("end", "Identity", "y", T=F32))
    after = converted(before, "end")
    assert lines(after) == ["a = Const()", "y/z = Neg(a)", "end = Identity(y/z)"]


def test_a_batching_call_is_inlined_with_what_it_captured():
    from tensorflow.python.ops import batch_ops

    def build(x):
        weight = tf.constant([2.0])
        batched = batch_ops.batch_function(1, 10, 100)(lambda v: v * weight)
        return batched(x)[0]

    assert computed(build) == [2, 4, 6, 8]


def looped(body, ret, cond=None):
    """While over one float from 1.0, as long as it is under 10, with a body of TPU ops."""
    before = graph(
        const("a", 1.0),
        node("loop", "While", "a", T=[F32], cond=calls("cond"), body=calls("body")),
        node("y", "Identity", "loop", T=F32),
    )
    test = [const("ten", 10.0), node("less", "Less", "x", "ten:output:0", T=F32)]
    function = add_function(before, "cond", ["x"], {"out": "less:z:0"}, test)
    function.signature.output_arg[0].type = tf.bool.as_datatype_enum
    add_function(before, "body", ["x"], {"out": ret}, body)
    return before


def test_ops_in_the_body_of_a_loop_are_replaced_and_their_readers_follow():
    before = looped(
        [
            node("meta", "TPUReplicateMetadata", num_replicas=1),
            node("in", "TPUReplicatedInput", "x", N=1, T=F32),
            node("low", "Cast", "in:output:0", "^meta", SrcT=F32, DstT=tf.bfloat16),
            node("high", "Cast", "low:y:0", SrcT=tf.bfloat16, DstT=F32),
            const("groups", [[0]], tf.int32),
            node("sum", "CrossReplicaSum", "high:y:0", "groups:output:0", T=F32),
            node("kept", "GuaranteeConst", "sum:output:0", T=F32),
            node("double", "Add", "kept:output:0", "high:y:0", T=F32),
            node("out", "TPUReplicatedOutput", "double:z:0", num_replicas=1, T=F32),
        ],
        "out:outputs:0",
    )
    after = converted(before)
    body = next(one for one in after.library.function if one.signature.name == "body")
    assert {one.op for one in body.node_def} == {"Identity", "Const", "Add"}
    assert run(after, "y:0") == 16.0


def test_calls_in_the_body_of_a_loop_are_inlined_there():
    core = node("core", "TPUOrdinalSelector")
    call = node("call", "TPUPartitionedCall", "x", "core:device_ordinals:0", f=calls("triple"),
                Tin=[F32], Tout=[F32])  # fmt: skip
    before = looped([core, call], "call:output:0")
    triple = [const("three", 3.0), node("z", "Mul", "x", "three:output:0", T=F32)]
    add_function(before, "triple", ["x"], {"out": "z:z:0"}, triple)
    after = converted(before)
    assert sorted(one.signature.name for one in after.library.function) == ["body", "cond"]
    assert run(after, "y:0") == 27.0


def test_branches_and_loops_of_xla_become_tensorflows_own():
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    def build(x):
        double = defun(False)(lambda v: v * 2.0)
        negate = defun(False)(lambda v: -v)
        limit = defun(False)(lambda v: tf.reduce_max(v) < 10.0)
        grown = gen_xla_ops.xla_while([x], cond=limit, body=double)[0]
        return gen_xla_ops.xla_if(tf.reduce_max(x) > 3.0, [grown], negate, double, [F32])[0]

    assert computed(build) == [-4, -8, -12, -16]
    assert computed(build, X / 2) == [8, 16, 24, 32]


def test_what_xla_compile_marks_is_computed_as_it_is():
    from tensorflow.python.compiler.xla import xla

    assert computed(lambda x: xla.compile(lambda v: v * 2.0 + 1.0, [x])[0]) == [3, 5, 7, 9]


@pytest.mark.parametrize("x, expected", [(X, [7, 7, 7, 7]), (-X, [-2, -4, -6, -8])])
def test_a_cluster_inside_of_a_branch_runs_only_when_it_is_taken(x, expected):
    def build(x):
        def seven():
            return tf.tpu.rewrite(lambda v: tf.fill([4], 7.0), [x])[0]

        def double():
            return tf.tpu.rewrite(lambda v: v * 2.0, [x])[0]

        return tf.cond(tf.reduce_sum(x) > 0, seven, double)

    assert computed(build, x) == expected


def test_a_cluster_inside_of_a_loop_runs_in_its_frame():
    def build(x):
        def body(i, v):
            return i + 1, tf.tpu.rewrite(lambda w: w + tf.ones([4]), [v])[0]

        return tf.while_loop(lambda i, _: i < 3, body, [0, x])[1]

    assert computed(build) == [4, 5, 6, 7]


def test_the_inference_apis_of_tpu_are_inlined():
    from tensorflow.python.tpu import tpu

    def build(x):
        def computation(v):
            with tf.variable_scope("net"):
                return v * tf.get_variable("w", [4])

        return tpu.rewrite_for_inference(computation, [x])[0]

    ops = {one.op for one in converted(built(build)).node}
    assert ops == {"Placeholder", "VarHandleOp", "ReadVariableOp", "Mul", "Identity", "NoOp"}


def test_a_waiting_node_waits_for_what_deleted_bookkeeping_waited_for():
    before = graph(
        const("pred", True, tf.bool),
        const("a", 1.0),
        node("switch", "Switch", "a", "pred", T=F32),
        node("no", "Identity", "switch", T=F32),
        node("yes", "Identity", "switch:1", T=F32),
        node("meta", "TPUReplicateMetadata", "^no", num_replicas=1),
        const("seven", 7.0, F32, "^meta"),
        node("y", "Merge", "seven", "yes", T=F32, N=2),
    )
    before.node[0].op = "Placeholder"
    before.node[0].ClearField("attr")
    before.node[0].attr["dtype"].type = tf.bool.as_datatype_enum
    after = converted(before)
    assert run(after, "y:0", {"pred:0": True}) == 1.0
    assert run(after, "y:0", {"pred:0": False}) == 7.0


def test_what_feeds_a_tpu_and_takes_from_it_goes_where_only_its_end_is_waited_for():
    before = graph(
        const("a", 1.0),
        node("fed", "Prelinearize", "a", dtype=F32),
        node("feed", "InfeedEnqueuePrelinearizedBuffer", "fed"),
        node("take", "OutfeedEnqueueTuple", "a", "^feed", dtypes=[F32]),
        node("y", "Neg", "a", "^take", T=F32),
    )
    assert lines(converted(before)) == ["a = Const()", "y = Neg(a, ^a)"]


def test_a_variable_inside_of_a_branch_is_restored_without_the_branch(tmp_path):
    scalar = tf.AttrValue(shape=tf.TensorShape([]).as_proto())
    rows = tf.AttrValue(shape=tf.TensorShape([None]).as_proto())
    before = graph(
        node("x", "Placeholder", dtype=F32, shape=rows),
        node("v", "VarHandleOp", "^x", dtype=F32, shape=scalar, shared_name=b"v"),
        node("read", "ReadVariableOp", "v", dtype=F32),
        node("y", "Mul", "x", "read", T=F32),
    )
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(before, name="")
    spec = (TensorSpec("x", "x:0", "float32", (None,)),)
    signature = Signature(spec, (TensorSpec("y", "y:0", "float32", (None,)),))
    write_saved_model(str(tmp_path), imported, signature, (), ())
    model = SavedModel.FromString((tmp_path / "saved_model.pb").read_bytes())
    view = GraphView(model.meta_graphs[0].graph_def, ["save/restore_all"])
    assert "x" not in view.reachable()
    assert view.nodes["save/handle"].attr["shared_name"].s == b"v"
