"""What a bundle is compared with when nobody gives predictions: the source itself."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError, ParityError
from batchinfer.signature import Signature, TensorSpec
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.proof import prove as proof
from conversion.proof.arithmetic import arithmetic_of
from conversion.proof.bare import XLA_CPU, bare, widened
from conversion.proof.integer_bounds import integer_bounds
from conversion.proof.settle_batch import first_that_runs, flat_outputs
from conversion.proof.synthetic import Draw, draws, why_not
from conversion.proof.tolerance import Tolerance
from tests.conversion import tpu_models
from tests.conversion.graphs import add_function, calls, const, graph, lines, node, run
from tests.conversion.test_convert import options, save_graph

# The source's graph, barely changed --------------------------------------------------------


def test_only_ops_that_a_tpu_alone_has_are_replaced_and_nothing_is_moved():
    before = graph(
        node("meta", "TPUReplicateMetadata", num_replicas=1),
        const("x", [1.0, 2.0]),
        node("in", "TPUReplicatedInput", "x", N=1, T=tf.float32),
        node("y", "Neg", "in", "^meta", T=tf.float32),
        const("groups", [[0]], tf.int32),
        node("sum", "CrossReplicaSum", "y", "groups", T=tf.float32),
        node("out", "TPUReplicatedOutput", "sum", num_replicas=1, T=tf.float32),
    )
    after = bare(before)
    assert lines(after) == [
        "meta = NoOp()",
        "x = Const()",
        "in = Identity(x)",
        "y = Neg(in, ^meta)",
        "groups = Const()",
        "sum = Identity(y)",
        "out = Identity(sum)",
    ]
    assert run(after, "out:0").tolist() == [-1.0, -2.0]


def test_a_call_on_a_tpu_becomes_tensorflows_own_call_of_the_same_function():
    before = graph(
        const("x", [1.0, 2.0]),
        node("core", "TPUOrdinalSelector"),
        node("y", "TPUPartitionedCall", "x", "core", Tin=[tf.float32], Tout=[tf.float32],
             f=calls("body")),
    )  # fmt: skip
    body = [
        node("meta", "TPUReplicateMetadata", num_replicas=1),
        node("square", "Square", "a", "^meta", T=tf.float32),
        node("out", "TPUReplicatedOutput", "square:y:0", num_replicas=1, T=tf.float32),
    ]
    add_function(before, "body", ["a"], {"b": "out:outputs:0"}, body)
    after = bare(before)
    assert lines(after)[1:] == ["core = NoOp()", "y = StatefulPartitionedCall(x)"]
    assert dict(after.library.function[0].ret) == {"b": "out:output:0"}
    assert run(after, "y:0").tolist() == [1.0, 4.0]


def test_a_sum_over_several_replicas_stays_for_the_session_to_refuse():
    before = graph(
        node("meta", "TPUReplicateMetadata", num_replicas=2),
        const("x", 1.0),
        const("groups", [[0, 1]], tf.int32),
        node("sum", "CrossReplicaSum", "x", "groups", T=tf.float32),
    )
    assert bare(before).node[3].op == "CrossReplicaSum"


def test_a_dilated_depthwise_convolution_is_left_to_xla_which_reads_its_dilations():
    x = np.random.RandomState(0).rand(1, 9, 9, 2).astype(np.float32)
    kernel = np.random.RandomState(1).rand(3, 3, 2, 1).astype(np.float32)
    attrs = {"T": tf.float32, "strides": [1] * 4, "padding": b"SAME", "dilations": [1, 2, 2, 1]}
    before = graph(
        node("x", "Placeholder", dtype=tf.float32),
        const("kernel", kernel),
        node("y", "DepthwiseConv2dNative", "x", "kernel", **attrs),
    )
    after = bare(before)
    assert [one.device for one in after.node] == ["", "", XLA_CPU]
    with tf.Graph().as_default(), tf.Session() as session:
        expected = session.run(tf.nn.depthwise_conv2d(x, kernel, [1] * 4, "SAME", rate=[2, 2]))
    np.testing.assert_allclose(run(after, "y:0", {"x:0": x}), expected, rtol=0, atol=1e-5)
    assert np.abs(run(before, "y:0", {"x:0": x}) - expected).max() > 0.5  # the fault itself


def test_widening_reaches_types_constants_and_functions():
    before = graph(
        const("half", [0.7], tf.bfloat16),
        node("list", "IdentityN", "half", T=[tf.bfloat16]),
        node("call", "StatefulPartitionedCall", "list", Tin=[tf.bfloat16], Tout=[tf.bfloat16],
             f=calls("double")),
    )  # fmt: skip
    body = [node("y", "Add", "a", "a", T=tf.bfloat16)]
    function = add_function(before, "double", ["a"], {"b": "y:z:0"}, body)
    for argument in (function.signature.input_arg[0], function.signature.output_arg[0]):
        argument.type = tf.bfloat16.as_datatype_enum
    assert arithmetic_of(before, ["call:0"]) == "bfloat16"
    after = widened(before)
    assert "BFLOAT16" not in str(after)
    assert arithmetic_of(after, ["call:0"]) == "float32"
    assert run(after, "call:0").tolist() == [1.3984375]  # twice 0.7 rounded to bfloat16


def test_arithmetic_is_that_of_the_ops_that_the_outputs_need():
    found = graph(
        node("x", "Placeholder", dtype=tf.float32),
        node("narrow", "Cast", "x", SrcT=tf.float32, DstT=tf.bfloat16),
        node("y", "Neg", "x", T=tf.float32),
        node("z", "Neg", "narrow", T=tf.bfloat16),
    )
    assert arithmetic_of(found, ["y:0"]) == "float32"
    assert arithmetic_of(found, ["z:0"]) == "bfloat16"


# Inputs that are made up -------------------------------------------------------------------


def signature(*specs):
    inputs = tuple(TensorSpec(name, f"{name}:0", dtype, shape) for name, dtype, shape in specs)
    return Signature(inputs, (TensorSpec("y", "y:0", "float32", (None,)),))


def test_inputs_are_drawn_from_the_likeliest_to_the_safest_and_the_same_each_time():
    asked = signature(("ids", "int32", (None, 7)), ("pixels", "uint8", (None, 50)),
                      ("x", "float32", (None, 3)), ("on", "bool", (None,)))  # fmt: skip
    found = list(draws(asked, 5, {"ids": 30}))
    told = [(one.about["floats"], one.about["integers_below"]) for one in found]
    assert told == [
        ("N(0, 1)", {"ids": 30, "pixels": 256}),
        ("N(0, 1)", {"ids": 2, "pixels": 2}),
        ("[0, 1)", {"ids": 30, "pixels": 256}),
        ("[0, 1)", {"ids": 2, "pixels": 2}),
    ]
    first = found[0].arrays
    assert [(first[name].dtype.name, first[name].shape) for name in sorted(first)] == [
        ("int32", (5, 7)), ("bool", (5,)), ("uint8", (5, 50)), ("float32", (5, 3))
    ]  # fmt: skip
    assert first["ids"].max() < 30 and first["pixels"].max() > 200 and first["x"].min() < 0
    assert found[2].arrays["x"].min() >= 0
    again = next(draws(asked, 5, {"ids": 30})).arrays
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_strings_are_not_made_up():
    assert "input words takes strings" in why_not(signature(("words", "string", (None,))))
    with pytest.raises(InputError, match="expected real ones in --reference"):
        next(draws(signature(("words", "string", (None,))), 5, {}))


def test_whole_numbers_stay_inside_the_tables_that_they_look_up():
    with tf.Graph().as_default() as made:
        ids = tf.placeholder(tf.int64, [None, 4], name="ids")
        kinds = tf.placeholder(tf.int32, [None, 4], name="kinds")
        tf.placeholder(tf.int32, [None], name="free")
        table = tf.get_variable("table", [50, 3], use_resource=True)
        tf.nn.embedding_lookup(table, tf.reshape(ids, [-1]))
        tf.gather(tf.ones([40, 2]), tf.cast(ids, tf.int32))
        tf.one_hot(tf.expand_dims(kinds, 1), 2)
    asked = signature(("ids", "int64", (None, 4)), ("kinds", "int32", (None, 4)),
                      ("free", "int32", (None,)))  # fmt: skip
    assert integer_bounds(made.as_graph_def(), asked) == {"ids": 40, "kinds": 2}


def test_the_first_inputs_that_tell_rows_apart_are_taken():
    def run_model(feeds):
        x = feeds["x"]
        if x.min() < 0:
            raise ValueError("below 0")
        return {"y": np.zeros(3) if x.max() > 9 else x}

    candidates = [Draw({"x": np.array(values)}) for values in ([-1, 2], [0, 99], [4, 5], [6, 7])]
    assert first_that_runs(candidates, run_model) == (candidates[2], "")
    assert first_that_runs(candidates[:2], run_model)[0] is candidates[1]
    assert first_that_runs(candidates[:1], run_model) == (
        None, "the model cannot be run with them: below 0"
    )  # fmt: skip


def test_outputs_that_say_the_same_of_every_row_prove_little():
    outputs = {"a": np.ones((3, 2)), "b": np.arange(3), "c": np.array([1.0, np.nan, 2.0])}
    assert flat_outputs(outputs) == ["a", "c"]
    classes, scores = np.zeros(3, np.int64), np.array([[0.9], [0.8], [0.7]])
    assert flat_outputs({"classes": classes, "scores": scores}) == []
    assert flat_outputs({"classes": classes, "scores": scores * 0}) == ["classes", "scores"]


# Whole conversions -------------------------------------------------------------------------


def report(result):
    return result["parity"]["reference"]


def test_a_source_in_bfloat16_is_compared_in_float32_and_as_it_was_traced(artifacts, tmp_path):
    result = convert(options(artifacts, "rewrite_bfloat16", tmp_path / "b"))
    manifest = Bundle.open(str(tmp_path / "b")).manifest
    assert report(result)["arithmetic"] == "float32"
    assert "bfloat16 widened to float32" in report(result)["how"]
    assert result["parity"]["outputs"]["probabilities"]["max_absdiff"] <= 1e-6
    assert result["parity"]["atol"] == 1e-5
    traced = manifest["parity_bfloat16"]
    assert traced["reference"]["arithmetic"] == "bfloat16" and traced["atol"] == 1e-2
    assert 1e-4 < traced["outputs"]["probabilities"]["max_absdiff"] < 1e-2
    assert report(result)["inputs"] == {
        "kind": "synthetic", "seed": 20, "rows": 8, "floats": "N(0, 1)", "integers_below": {},
    }  # fmt: skip


def test_a_file_with_inputs_alone_has_its_outputs_from_the_source(artifacts, tmp_path):
    path = str(tmp_path / "inputs.npz")
    np.savez(path, **{"inputs/image": tpu_models.images(5)})
    result = convert(options(artifacts, "both_float32", tmp_path / "b", reference=path))
    assert report(result)["inputs"] == {"kind": "user", "rows": 5}
    assert report(result)["how"].endswith("loaded by tf.saved_model.loader")
    assert result["parity"]["passed"]


def test_another_checkpoint_is_read_by_name_and_not_by_the_sources_saver(artifacts, tmp_path):
    changes = {"checkpoint": artifacts.checkpoint}
    result = convert(options(artifacts, "both_float32", tmp_path / "b", **changes))
    assert "read from the checkpoint by name" in report(result)["how"]
    assert result["parity"]["passed"]


def test_a_fault_of_the_conversion_is_found_without_any_file(artifacts, tmp_path, monkeypatch):
    """The bundle's graph is written with another constant than the source's."""

    def spoiled(folder, source, lowered):
        for one in lowered.graph_def.node:
            if one.name.endswith("scale"):
                one.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(np.float32(0.8)))
        write(folder, source, lowered)

    from conversion import convert as module

    write = module.write_model
    monkeypatch.setattr(module, "write_model", spoiled)
    with pytest.raises(ParityError, match="FAILED: compared with source graph"):
        convert(options(artifacts, "rewrite_float32", tmp_path / "b"))


def test_a_user_tolerance_wins_over_the_defaults(artifacts, reference_file, tmp_path):
    changes = {"reference": reference_file, "tolerance": Tolerance(0.5, 0.0)}
    result = convert(options(artifacts, "rewrite_bfloat16", tmp_path / "b", **changes))
    assert (result["parity"]["atol"], result["parity"]["tolerance_why"]) == (
        0.5,
        "--atol and --rtol",
    )


def test_a_file_for_a_source_in_bfloat16_may_differ_by_its_rounding(
    artifacts, reference_file, tmp_path
):
    asked = options(artifacts, "rewrite_bfloat16", tmp_path / "b", reference=reference_file)
    found = convert(asked)["parity"]
    assert (found["reference"]["kind"], found["atol"]) == ("user file", 1e-2)
    assert found["tolerance_why"].startswith("default for bfloat16")


def test_inputs_that_show_nothing_are_warned_about(tmp_path):
    path = save_graph(
        tmp_path,
        lambda x, w: tf.identity(tf.tpu.rewrite(lambda x: x * 0 + tf.reduce_sum(w), [x])[0], "out"),
    )
    asked = ConvertOptions(path, str(tmp_path / "b"), inputs={"x": "x"}, outputs={"y": "out"})
    warnings = convert(asked)["warnings"]  # the batch probe's, and the comparison's
    assert any("output y says the same of every row" in warning for warning in warnings)


def test_what_cannot_be_made_up_leaves_the_bundle_unproven_with_the_reason(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        words = tf.placeholder(tf.string, [None], name="words")
        tf.get_variable("global_step", initializer=0)
        session.run(tf.global_variables_initializer())
        lengths = {"lengths": tf.strings.length(words)}
        tf.saved_model.simple_save(session, str(tmp_path / "m"), {"words": words}, lengths)
    result = convert(ConvertOptions(str(tmp_path / "m"), str(tmp_path / "b")))
    assert result["parity"] is None
    assert "nothing proves this bundle: input words takes strings" in result["warnings"][0]
    assert result["batch"]["rows_independent"] is None
    assert proof.read_given(ConvertOptions("m", "b", reference="none")) is None


def test_a_float16_bundle_is_compared_with_its_float32_twin_as_well(artifacts, tmp_path):
    asked = options(artifacts, "tpu_float32", tmp_path / "b", precision="float16", target="cpu")
    result = convert(asked)
    manifest = Bundle.open(str(tmp_path / "b")).manifest
    twin = manifest["parity_float32"]
    assert (result["parity"]["passed"], twin["passed"]) == (True, True)
    assert (twin["atol"], twin["tolerance_why"]) == (1e-3, "default for float16")
    # Both sides of the second are bundles; their difference is what half precision does.
    assert 1e-5 < twin["outputs"]["probabilities"]["max_absdiff"] < 2e-3
    assert "compared with the float32 bundle of the same source" in result["report"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_float16_bundle_that_is_too_far_from_its_twin_is_not_written(artifacts, tmp_path):
    changes = {"precision": "float16", "target": "cpu", "tolerance": Tolerance(1e-6, 0.0)}
    with pytest.raises(ParityError, match="FAILED"):
        convert(options(artifacts, "tpu_float32", tmp_path / "b", **changes))
    assert list(tmp_path.iterdir()) == []
