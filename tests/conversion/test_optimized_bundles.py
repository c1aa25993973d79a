"""Optimised bundles: what is in them, when the plain graph stays, and what is said of it."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.proof.tolerance import Tolerance

X = np.random.RandomState(11).randn(3, 6, 6, 4).astype(np.float32)


def saved(folder, compute, values=None, inputs=X, also=""):
    """A SavedModel of `y = compute(x)` for x of float32[?, 6, 6, 4]."""
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.set_random_seed(4)
        x = tf.placeholder(tf.float32, [None, 6, 6, 4], name="x")
        y = compute(x)
        session.run(tf.global_variables_initializer())
        for variable in tf.global_variables():
            if values and variable.op.name in values:
                variable.load(np.full(variable.shape.as_list(), values[variable.op.name]), session)
        outputs = y if isinstance(y, dict) else {"y": y}
        more = {also[:-2]: graph.get_tensor_by_name(also)} if also else {}
        tf.saved_model.simple_save(session, folder, {"x": x, **more}, outputs)
        return session.run(y, {x: inputs, **dict.fromkeys(more.values(), inputs[:, 0, 0, 0])})


def network(x):
    for index in range(2):
        spread = tf.random_uniform_initializer(0.5, 2, seed=index)
        x = tf.layers.conv2d(x, 5, 3, padding="same", name=f"conv{index}")
        x = tf.layers.batch_normalization(
            x, name=f"norm{index}", gamma_initializer=spread, moving_variance_initializer=spread,
            moving_mean_initializer=spread,
        )  # fmt: skip
        x = tf.nn.leaky_relu(x)
    return tf.layers.dense(tf.reduce_mean(x, [1, 2]), 3, name="head")


def scored(path, inputs=X):
    scorer = Scorer.restore(Bundle.open(path), 3)
    try:
        return scorer.score({"x": inputs})["y"]
    finally:
        scorer.close()


def test_an_infinity_of_the_plain_graph_is_kept_and_stands_in_no_way(tmp_path):
    def masked(x):
        mask = tf.log(tf.get_variable("open", [3])) + tf.log(tf.constant([1.0, 1.0, 0.0]))
        return tf.nn.softmax(network(x) + mask)

    expected = saved(str(tmp_path / "saved"), masked, {"open": [1, 1, 0]})
    out = str(tmp_path / "bundle")
    result = convert(ConvertOptions(str(tmp_path / "saved"), out))
    assert result["optimised"].startswith("2 batch norms or factors folded into weights")
    assert expected[:, 2].tolist() == [0, 0, 0]
    assert np.max(np.abs(scored(out) - expected)) < 1e-6


def test_colocation_with_a_node_that_goes_is_no_hindrance(tmp_path):
    def placed(x):
        y = tf.identity(network(x), name="goes")
        with tf.colocate_with(y, ignore_existing=True):
            return tf.nn.leaky_relu(y)

    saved(str(tmp_path / "saved"), placed)
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"].startswith("2 batch norms or factors folded into weights")


def test_an_input_that_others_only_wait_for_stays(tmp_path):
    def compute(x):
        with tf.control_dependencies([tf.placeholder(tf.float32, [None], name="z")]):
            return network(tf.identity(x))

    saved(str(tmp_path / "saved"), compute, also="z:0")
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"].startswith("2 batch norms or factors folded into weights")
    assert result["inputs"] == ["x: float32[?, 6, 6, 4]", "z: float32[?]"]


def test_a_bundle_holds_the_folded_weights_and_says_what_became_of_the_others(tmp_path):
    expected = saved(str(tmp_path / "saved"), network)
    out = str(tmp_path / "bundle")
    result = convert(ConvertOptions(str(tmp_path / "saved"), out))
    manifest = Bundle.open(out).manifest
    assert result["optimised"].startswith("2 batch norms or factors folded into weights, 4 values")
    assert result["optimised"] == manifest["optimised"]
    new = "norm0/FusedBatchNormV3/folded_weights/folded"
    assert manifest["variables"][new] == {
        "source": ["conv0/kernel", "norm0/gamma", "norm0/moving_variance"],
        "dtype": "float32",
        "shape": [3, 3, 4, 5],
        "computed_by": ["AddV2", "Mul", "Rsqrt"],
    }
    assert sorted(manifest["variables"])[:2] == ["head/bias", "head/kernel"]
    assert manifest["dropped"]["conv0/kernel"] == f"folded into {new}"
    reader = tf.train.load_checkpoint(out + "/variables/variables")
    assert sorted(reader.get_variable_to_shape_map()) == sorted(manifest["variables"])
    assert {"rewrite": "fold_batch_norm", "count": 2} in manifest["rewrites"]
    assert np.max(np.abs(scored(out) - expected)) < 1e-6
    again = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "again")))
    assert again["digest"] == result["digest"]


def test_without_optimisation_the_variables_are_those_of_the_source(tmp_path):
    expected = saved(str(tmp_path / "saved"), network)
    result = convert(
        ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle"), optimize=False)
    )
    assert (result["optimised"], result["variables"]["folded"]) == ("", 0)
    assert result["variables"]["dropped"] == 0
    assert np.max(np.abs(scored(str(tmp_path / "bundle")) - expected)) < 1e-6


@pytest.mark.parametrize("optimize", [True, False])
def test_what_is_not_compared_is_not_optimised(tmp_path, optimize):
    saved(str(tmp_path / "saved"), network)
    out = str(tmp_path / "bundle")
    options = ConvertOptions(str(tmp_path / "saved"), out, reference="none", optimize=optimize)
    says = "not optimised: nothing was run, as --reference none asks" if optimize else ""
    assert convert(options)["optimised"] == says
    assert "conv0/kernel" in Bundle.open(out).manifest["variables"]


def huge(x):
    kernel = tf.get_variable("kernel", [3, 3, 4, 5])
    return tf.reduce_sum(tf.nn.conv2d(x, kernel, 1, "SAME") * tf.get_variable("scale", [5]), [1, 2])


def test_the_plain_graph_stays_where_folded_weights_would_leave_their_range(tmp_path):
    """1e25 * 1e25 is infinite in float32; 1e-30 * 1e25 * 1e25 is not."""
    saved(str(tmp_path / "saved"), huge, {"kernel": 1e25, "scale": 1e25})
    np.savez(str(tmp_path / "reference.npz"), **{"inputs/x": (X * 1e-30).astype(np.float32)})
    out = str(tmp_path / "bundle")
    result = convert(
        ConvertOptions(str(tmp_path / "saved"), out, reference=str(tmp_path / "reference.npz"))
    )
    assert result["optimised"] == (
        "not optimised: computed ahead, mul/folded_weights/folded would not be finite"
    )
    assert result["parity"]["passed"]
    assert sorted(Bundle.open(out).manifest["variables"]) == ["kernel", "scale"]


def test_a_graph_that_fails_where_the_plain_one_passes_is_not_taken(tmp_path, monkeypatch):
    """The fault is put in: a norm whose statistics are forgotten."""
    from conversion.optimize import batch_norm

    monkeypatch.setattr(batch_norm, "_scale_weights", lambda *_: None)
    saved(str(tmp_path / "saved"), network)
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"].startswith("not optimised: the optimised graph was worse compared")
    assert result["parity"]["passed"] and result["variables"]["kept"] == 14


def slightly_wrong(monkeypatch):
    """The fault is put in: weights that are folded with 1.001 times their factor."""
    from conversion.optimize import batch_norm

    right = batch_norm._scale_weights

    def wrong(nodes, new, name, linear, scale, by_channel):
        more = new.add(name + "/more", "Mul", scale, new.constant("more", np.float32(1.001)))
        right(nodes, new, name, linear, more, by_channel)

    monkeypatch.setattr(batch_norm, "_scale_weights", wrong)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_fault_that_the_tolerance_would_hide_shows_against_the_plain_graph(
    tmp_path, monkeypatch, precision
):
    slightly_wrong(monkeypatch)
    saved(str(tmp_path / "saved"), network)
    wide = Tolerance(0.1, 0.1) if precision == "float32" else None
    options = {"precision": precision, "tolerance": wide}
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle"), **options))
    assert result["optimised"] == (
        "not optimised: the optimised graph moved output y by more than rounding"
    )


def test_a_graph_that_fails_its_comparison_stays_as_it_is(tmp_path):
    expected = saved(str(tmp_path / "saved"), network)
    path, out = str(tmp_path / "reference.npz"), str(tmp_path / "bundle")
    np.savez(path, **{"inputs/x": X, "outputs/y": expected + 1})
    options = {"reference": path, "allow_parity_failure": True}
    result = convert(ConvertOptions(str(tmp_path / "saved"), out, **options))
    assert result["optimised"].startswith("not optimised: the plain graph fails already, compared")
    assert "conv0/kernel" in Bundle.open(out).manifest["variables"]


def test_a_disk_that_is_full_leaves_the_plain_graph(tmp_path, monkeypatch):
    from conversion.proof import optimised_files

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(optimised_files, "write_variables", full)
    saved(str(tmp_path / "saved"), network)
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"] == "not optimised: [Errno 28] No space left on device"
    assert result["parity"]["passed"] and result["variables"]["kept"] == 14
    assert sorted(os.listdir(str(tmp_path))) == ["bundle", "saved"]


def two_heads(x):
    y = network(x)
    return {"dead": tf.nn.relu(y - 1e3), "live": tf.reduce_sum(x, [1, 2, 3])}


def test_an_output_that_says_the_same_of_every_row_leaves_the_graph(tmp_path):
    saved(str(tmp_path / "saved"), two_heads)
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"] == (
        "not optimised: output dead says the same of every row, or is not finite, and shows no "
        "fault"
    )


def test_in_half_precision_the_folded_weights_are_stored_in_it(tmp_path):
    expected = saved(str(tmp_path / "saved"), network)
    out = str(tmp_path / "bundle")
    result = convert(ConvertOptions(str(tmp_path / "saved"), out, precision="float16"))
    kinds = {name: one["dtype"] for name, one in Bundle.open(out).manifest["variables"].items()}
    assert result["parity"]["passed"] and result["optimised"].startswith("2 batch norms")
    assert "float16" in kinds.values() and not any("norm0/gamma" in name for name in kinds)
    rewrites = Bundle.open(out).manifest["rewrites"]
    assert [one["count"] for one in rewrites if one["rewrite"] == "float16"] == [6]
    assert np.max(np.abs(scored(out) - expected)) < 5e-3


def steep(x):
    """A product that a factor makes 3000 times larger, and another as much smaller again."""
    x = tf.nn.relu(tf.matmul(tf.reshape(x, [-1, 144]), tf.get_variable("w0", [144, 64])))
    x = tf.matmul(x, tf.get_variable("w1", [64, 64])) * tf.get_variable("up", [64])
    return tf.matmul(x * tf.get_variable("down", [64]), tf.get_variable("w2", [64, 8]))


def test_a_factor_that_is_kept_out_of_float16_is_not_folded_into_it(tmp_path):
    expected = saved(str(tmp_path / "saved"), steep, {"up": 3000, "down": 1 / 3000}, 60 * X)
    out = str(tmp_path / "bundle")
    result = convert(ConvertOptions(str(tmp_path / "saved"), out, precision="float16"))
    assert "folded" not in result["optimised"]
    assert np.max(np.abs(scored(out, 60 * X) - expected)) < 0.02 * np.max(np.abs(expected))


def between(x):
    kernel, last = tf.get_variable("kernel", [3, 3, 4, 5]), tf.get_variable("last", [3, 3, 5, 2])
    y = tf.nn.conv2d(x, kernel, 1, "SAME") * tf.get_variable("scale", [5])
    return tf.reduce_sum(tf.nn.conv2d(y, last, 1, "SAME"), [1, 2])


def test_folded_weights_out_of_the_range_of_float16_leave_the_plain_float16_graph(tmp_path):
    saved(str(tmp_path / "saved"), between, {"kernel": 1e3, "scale": 1e3, "last": 1e-3})
    np.savez(str(tmp_path / "reference.npz"), **{"inputs/x": (X * 1e-3).astype(np.float32)})
    result = convert(
        ConvertOptions(
            str(tmp_path / "saved"), str(tmp_path / "bundle"), precision="float16",
            reference=str(tmp_path / "reference.npz"),
        )
    )  # fmt: skip
    assert result["optimised"].startswith("not optimised: computed ahead")
    assert result["parity"]["passed"]


def test_a_graph_that_would_only_lose_identities_is_not_written_again(tmp_path):
    saved(str(tmp_path / "saved"), lambda x: tf.layers.dense(tf.reduce_mean(x, [1, 2]), 3))
    result = convert(ConvertOptions(str(tmp_path / "saved"), str(tmp_path / "bundle")))
    assert result["optimised"] == "nothing to optimise"
    assert "identities" not in result["rewrites"]
