"""Model code written for TPUs -> a bundle that gives what the code gives without a TPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError, ParityError
from batchinfer.ragged import Ragged
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.code.model_fn import model_source
from conversion.code.plain_run import reference_outputs
from conversion.convert import convert
from conversion.options import ConvertOptions, ModelCode
from conversion.proof import reference
from tests.conversion.code import bert, hard_coded, mnasnet, ranking, resnet, runs

CODE = "tests.conversion.code."
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PREDICT = tf.estimator.ModeKeys.PREDICT


def files(folder, features, params=None):
    """The paths of features.yaml and params.yaml, as keywords of ModelCode."""
    written = {}
    for name, text in (("features", features), ("params", params)):
        if text is not None:
            path = folder / f"{name}.yaml"
            path.write_text(text)
            written[name] = str(path)
    return written


def converted(folder, checkpoint, named, features, params=None, **changes):
    """Convert; returns the opened bundle."""
    flag = "build" if "build" in changes else "model_fn"
    mode = changes.pop("mode", "predict")
    changes.pop("build", None)
    code = ModelCode(**{flag: CODE + named}, mode=mode, **files(folder, features, params))
    convert(ConvertOptions(checkpoint, str(folder / "bundle"), code=code, **changes))
    return Bundle.open(str(folder / "bundle"))


def scored(bundle, feeds):
    scorer = Scorer.restore(bundle, None if bundle.signature.fixed_batch_rows else 4)
    rows = len(next(iter(feeds.values())))
    size = scorer.batch_rows
    try:
        parts = [
            scorer.score({name: array[i : i + size] for name, array in feeds.items()})
            for i in range(0, rows, size)
        ]
    finally:
        scorer.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def images(rows, seed=3):
    return np.random.RandomState(seed).rand(rows, 8, 8, 1).astype(np.float32)


RESNET = "use_bfloat16: true\nuse_tpu: true\nlearning_rate: 1e-3\ntranspose_input: true\n"
RESNET_PARAMS = {"use_bfloat16": False, "use_tpu": False, "transpose_input": False}


class Hparams(dict):
    __getattr__ = dict.__getitem__


def resnet_params(**changes):
    return Hparams(RESNET_PARAMS, batch_size=4, learning_rate=1e-3, **changes)


@pytest.fixture(scope="module")
def resnet_checkpoint(tmp_path_factory):
    labels = tf.estimator.ModeKeys.TRAIN

    def build():
        resnet.model_fn(tf.constant(images(4)), tf.constant([0, 1, 2, 0]), labels, resnet_params())

    return runs.save_random(str(tmp_path_factory.mktemp("resnet")), build)


def resnet_plain(checkpoint, image):
    def build(fed):
        return resnet.model_fn(fed, None, PREDICT, resnet_params()).predictions, None

    return runs.run(build, checkpoint, image)


def test_a_resnet_with_bfloat16_scope_and_cross_replica_norms(resnet_checkpoint, tmp_path):
    features = "features: {feature: 'bfloat16[?, 8, 8, 1]'}"
    bundle = converted(tmp_path, resnet_checkpoint, "resnet:model_fn", features, RESNET)
    image = images(9)
    found, expected = scored(bundle, {"feature": image}), resnet_plain(resnet_checkpoint, image)
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], 0, 1e-6)
    assert found["classes"].tolist() == expected["classes"].tolist()
    manifest = bundle.manifest
    assert manifest["source"]["kind"] == "model_fn"
    assert manifest["batch"]["kind"] == "dynamic"
    compared_with = manifest["parity"]["reference"]
    assert compared_with["kind"] == "model code run plainly"
    assert compared_with["how"] == "built again without a TPU, restored by the model's own saver"
    assert manifest["notes"] == ["feature feature is float32 in place of bfloat16"]
    assert manifest["dropped"]["stem/kernel/Momentum"] == "optimizer slot (Momentum)"
    assert len(manifest["variables"]) == 7
    folded = [why for why in manifest["dropped"].values() if why.startswith("folded into")]
    assert len(folded) == 9  # of the norms behind a convolution; four values took their place


def test_a_bundle_that_is_not_what_the_plain_run_gives_is_not_written(
    resnet_checkpoint, tmp_path, monkeypatch
):
    def shifted(code, checkpoint, inputs):
        found = reference_outputs(code, checkpoint, inputs)
        return {**found, "probabilities": found["probabilities"] + 1e-3}

    monkeypatch.setattr(reference, "reference_outputs", shifted)
    features = "features: {feature: 'float32[?, 8, 8, 1]'}"
    with pytest.raises(ParityError, match=r"probabilities +FAILED"):
        converted(tmp_path, resnet_checkpoint, "resnet:model_fn", features, RESNET)
    assert not (tmp_path / "bundle").exists()


def test_a_model_that_does_not_run_plainly_is_compared_with_its_graph(
    resnet_checkpoint, tmp_path, monkeypatch
):
    def refuse(code, checkpoint, inputs):
        raise InputError("no kernel here")

    monkeypatch.setattr(reference, "reference_outputs", refuse)
    features = "features: {feature: 'float32[?, 8, 8, 1]'}"
    bundle = converted(tmp_path, resnet_checkpoint, "resnet:model_fn", features, RESNET)
    how = bundle.manifest["parity"]["reference"]["how"]
    assert how.endswith("built plainly it does not run: no kernel here")


def test_eval_outputs_are_what_the_metrics_are_given(resnet_checkpoint, tmp_path):
    features = "features: float32[8, 8, 1, 4]\nlabels: int64[4]"
    with pytest.raises(InputError, match="one batch size"):
        converted(tmp_path, resnet_checkpoint, "resnet:model_fn", features, RESNET, mode="eval")
    features = "features: float32[4, 8, 8, 1]\nlabels: int64[4]"
    params = RESNET.replace("transpose_input: true", "transpose_input: false")
    bundle = converted(
        tmp_path, resnet_checkpoint, "resnet:model_fn", features, params, mode="eval"
    )
    assert [str(one) for one in bundle.signature.inputs] == [
        "features: float32[?, 8, 8, 1]",  # built with 4 rows, and opened
        "labels: int64[?]",
    ]
    feeds = {"features": images(6), "labels": np.array([0, 1, 2, 0, 1, 2])}
    found = scored(bundle, feeds)
    assert sorted(found) == ["labels", "logits"]
    assert found["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    expected = resnet_plain(resnet_checkpoint, feeds["features"])["classes"]
    assert found["logits"].argmax(1).tolist() == expected.tolist()


BERT = """\
factory:
  bert_config: {call: "tests.conversion.code.bert:Config.from_json_file", args: [%s]}
  num_labels: 2
  init_checkpoint: gs://nowhere/uncased/bert_model.ckpt
  learning_rate: 5e-5
  num_train_steps: 10
  use_tpu: true
  use_one_hot_embeddings: true
"""


def test_a_bert_model_fn_builder_whose_init_checkpoint_is_gone(tmp_path):
    config = bert.Config(vocab_size=13, hidden_size=4)
    path = tmp_path / "bert_config.json"
    path.write_text(json.dumps(vars(config)))
    model_fn = bert.model_fn_builder(config, 2, None, 5e-5, 10, False, False)

    def spec(ids):
        return model_fn({"input_ids": ids}, None, PREDICT, {})

    checkpoint = runs.save_random(str(tmp_path), lambda: spec(tf.zeros([1, 6], tf.int32)))
    features = "features:\n  input_ids: int32[?, 6]\n  label_ids: int32[?]\n"
    bundle = converted(tmp_path, str(tmp_path), "bert:model_fn_builder", features, BERT % path)
    ids = np.arange(30, dtype=np.int32).reshape(5, 6) % 13
    expected = runs.run(lambda fed: (spec(fed).predictions, None), checkpoint, ids)
    found = scored(bundle, {"input_ids": ids})
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], 0, 1e-6)
    assert bundle.manifest["unused_inputs"] == ["label_ids"]


MNASNET = """\
flags:
  num_label_classes: 3
  export_moving_average: %s
  data_format: channels_last
"""


@pytest.mark.parametrize("export, sources", [("true", "/ExponentialMovingAverage"), ("false", "")])
def test_flags_say_whether_a_scaffold_restores_averages(tmp_path, export, sources):
    from absl import flags

    def call(fed, mode):
        values = {"use_tpu": False, "num_label_classes": 3, "data_format": "channels_last"}
        values["export_moving_average"] = export == "true"
        for name, value in values.items():
            flags.FLAGS[name].value = value
        flags.FLAGS.mark_as_parsed()
        try:
            spec = mnasnet.model_fn(fed, mode)
            return spec.predictions, runs.scaffold_saver(spec)
        finally:
            flags.FLAGS.unparse_flags()
            flags.FLAGS["use_tpu"].value = True

    def build():
        call(tf.constant(images(2)), tf.estimator.ModeKeys.TRAIN)

    checkpoint = runs.save_random(str(tmp_path), build)
    expected = runs.run(lambda fed: call(fed, PREDICT), checkpoint, images(5))
    weights = {"true": None, "false": "raw"}[export]  # a scaffold that restores averages says it
    features = "float32[?, 8, 8, 1]"
    bundle = converted(
        tmp_path, checkpoint, "mnasnet:model_fn", features, MNASNET % export, weights=weights
    )
    found = scored(bundle, {"features": images(5)})
    np.testing.assert_allclose(found["predictions"], expected, 0, 1e-6)
    assert bundle.manifest["variables"]["head/kernel"]["source"] == "head/kernel" + sources
    assert flags.FLAGS["use_tpu"].value is True
    assert not flags.FLAGS.is_parsed()


def test_code_that_only_ran_on_tpus_is_answered_for_one_device(tmp_path):
    def build():
        hidden = tf.layers.dense(tf.zeros([1, 4]), 3)
        tf.layers.dense(hidden, 2, name="logits")

    checkpoint = runs.save_random(str(tmp_path), build)
    bundle = converted(tmp_path, checkpoint, "hard_coded:model_fn", "float32[3, 4]", "{}")
    x = np.random.RandomState(1).randn(5, 4).astype(np.float32)
    read = tf.train.load_checkpoint(checkpoint).get_tensor
    hidden = np.maximum(x @ read("dense/kernel") + read("dense/bias"), 0)
    expected = hidden @ read("logits/kernel") + read("logits/bias")
    found = scored(bundle, {"features": x})
    assert sorted(found) == ["scores"]
    np.testing.assert_allclose(found["scores"], expected, 0, 1e-6)
    assert bundle.manifest["notes"] == ["output norm is left out: it is a scalar"]
    assert tf.tpu.cross_replica_sum is hard_coded.cross_replica_sum


RANKING = """\
features:
  query: int64[?, 3]
  query_weight: float32[?, 3]
  user: int64[?, 1]
  friend: int64[?, 2]
  item: int64[?, 2]
"""
FED = {
    "query": np.array([[1, 2, -1], [10, -1, -1]]),  # -1 is no id
    "query_weight": np.array([[0.5, 2.0, 0.0], [1.0, 0.0, 0.0]], np.float32),
    "user": np.array([[3], [6]]),
    "friend": np.array([[0, 1], [2, -1]]),
    "item": np.array([[4, 4], [1, 0]]),
}


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """A checkpoint of the recommender, and its scores for `FED` without a TPU."""

    def call(fed):
        return ranking.model_fn(fed, None, PREDICT, {}).predictions

    checkpoint = runs.save_random(
        str(tmp_path_factory.mktemp("ranking")),
        lambda: call(tf.nest.map_structure(tf.constant, FED)),
    )
    return checkpoint, runs.run(lambda fed: (call(fed), None), checkpoint, FED)["score"]


def test_tpu_embedding_columns_look_up_on_the_host(ranked, tmp_path):
    checkpoint, expected = ranked
    names = dict(tf.train.list_variables(checkpoint))
    assert "tower/input_layer/friend_user_shared_embedding/embedding_weights" in names
    bundle = converted(tmp_path, checkpoint, "ranking:model_fn", RANKING, "{}", target="cpu")
    np.testing.assert_allclose(scored(bundle, FED)["score"], expected, 0, 1e-6)


def test_sparse_features_are_fed_from_rows_of_any_length(ranked, tmp_path):
    checkpoint, expected = ranked
    sparse = RANKING.replace(": ", ": sparse ").replace(", 3]", ", ?]").replace(", 2]", ", ?]")
    bundle = converted(tmp_path, checkpoint, "ranking:model_fn", sparse, "{}", target="cpu")
    lengths = {name: (FED[name] != -1).sum(1) for name in FED}
    lengths["query_weight"] = lengths["query"]
    feeds = {name: Ragged.unpadded(FED[name], lengths[name]) for name in FED}
    assert str(bundle.signature.inputs[0]) == "friend: ragged int64[?, ?]"
    np.testing.assert_allclose(scored(bundle, feeds)["score"], expected, 0, 1e-6)
    code = ModelCode(model_fn=CODE + "ranking:model_fn", **files(tmp_path, sparse, "{}"))
    plain = reference_outputs(code, checkpoint, feeds)
    np.testing.assert_allclose(plain["score"], expected, 0, 1e-6)


def dense_checkpoint(folder, *layers):
    """Random dense layers: (inputs, outputs, name)."""

    def build():
        for inputs, outputs, name in layers:
            tf.layers.dense(tf.zeros([1, inputs]), outputs, name=name)

    return runs.save_random(str(folder), build)


def reader(checkpoint):
    return tf.train.load_checkpoint(checkpoint).get_tensor


def test_a_build_function_gives_nested_outputs_by_their_path(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "net/dense"))
    features = "features:\n  x: float32[?, 4]"
    bundle = converted(tmp_path, checkpoint, "builders:build", features, build=True)
    x = np.random.RandomState(1).randn(3, 4).astype(np.float32)
    read = reader(checkpoint)
    expected = x @ read("net/dense/kernel") + read("net/dense/bias")
    found = scored(bundle, {"x": x})
    np.testing.assert_allclose(found["scores/raw"], expected, 0, 1e-6)
    np.testing.assert_allclose(found["scores/best/0"], expected.max(1), 0, 1e-6)
    assert bundle.manifest["source"]["kind"] == "build"
    assert bundle.manifest["notes"] == [
        "output anchors is left out: its first dimension is always 10; expected an open batch"
    ]


def test_replicas_share_variables_and_shards_are_one_batch(tmp_path):
    layers = [(8, 8, "dense"), (4, 3, "dense_1"), (3, 2, "dense_2"), (8, 2, "d")]
    checkpoint = dense_checkpoint(tmp_path, *layers)
    x = np.random.RandomState(1).randn(3, 8).astype(np.float32)

    def dense(x, name):
        return x @ reader(checkpoint)(name + "/kernel") + reader(checkpoint)(name + "/bias")

    (tmp_path / "a").mkdir()
    bundle = converted(tmp_path / "a", checkpoint, "builders:twice", "float32[?, 8]", build=True,
                       rules=drops(tmp_path, "d/.*"))  # fmt: skip
    found = scored(bundle, {"features": x})
    second = dense(dense(dense(x, "dense")[:, 4:], "dense_1"), "dense_2")
    np.testing.assert_allclose(found["second"], second, 1e-6, 1e-6)
    assert len(bundle.manifest["variables"]) == 6
    (tmp_path / "b").mkdir()
    bundle = converted(tmp_path / "b", checkpoint, "builders:spread", "float32[?, 8]", build=True,
                       rules=drops(tmp_path, "dense.*"))  # fmt: skip
    found = scored(bundle, {"features": x})["predictions"]
    np.testing.assert_allclose(found, dense(x, "d"), 0, 1e-6)


def drops(folder, name):
    path = folder / "rules.yaml"
    path.write_text(f"drop: [{{name: '{name}', reason: of another test}}]")
    return str(path)


@pytest.mark.parametrize(
    "named, params, output",
    [
        ("builders:by_keyword", "nested: {factor: 2.0}", "predictions"),
        ("builders:bound", "nested: {factor: 2.0}", "predictions"),
        ("builders:Model", "factory: {width: 2}", "y"),  # an instance that is called
        ("builders:Model.model_fn", "factory: {width: 2}", "y"),
        ("builders:estimator", "factory: {kind: tpu, width: 2}", "y"),
        ("builders:estimator", "factory: {kind: plain, width: 3}\nwidth: 2", "y"),
        ("builders:estimator", "factory: {kind: canned, width: 0}", "predictions"),
    ],
)
def test_model_fns_come_in_many_shapes(tmp_path, named, params, output):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    files_ = files(tmp_path, "features:\n  x: float32[?, 4]", params)
    source = model_source(ModelCode(model_fn=CODE + named, **files_), checkpoint)
    signature = source.meta_graph.signature_def["serving_default"]
    assert (list(signature.inputs), list(signature.outputs)) == (["x"], [output])
    width = {"y": 2, "predictions": 4 if "by_keyword" in named or "bound" in named else 1}[output]
    assert signature.outputs[output].tensor_shape.dim[1].size == width


def test_an_eval_without_predictions_and_metrics_is_refused(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    with pytest.raises(InputError, match="spec without predictions and eval_metrics"):
        converted(tmp_path, checkpoint, "builders:Model", "features:\n  x: float32[?, 4]",
                  "factory: {width: 2}", mode="eval")  # fmt: skip


def test_params_are_a_dict_and_hparams_at_once(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 1, "d"))
    params = "rate: 1e-4\nscale: 2\nuse_tpu: true\ninner: {use_tpu: true}\n"
    bundle = converted(
        tmp_path, checkpoint, "builders:looks_at_params", "float32[?, 4]", params, build=True
    )
    x = np.ones((2, 4), np.float32)
    expected = 2 * (x @ reader(checkpoint)("d/kernel") + reader(checkpoint)("d/bias"))
    np.testing.assert_allclose(scored(bundle, {"features": x})["predictions"], expected, 0, 1e-6)


# What the code is, its params, and words that the one error has to have.
MISTAKES = {
    "no such module": ("nowhere:f", None, ["no module tests.conv", "PYTHONPATH"]),
    "no such function": ("builders:dug", None, ["has no dug", "dig"]),
    "not a function": ("builders:tf", None, ["expected a function"]),
    "an exit at import": ("exits:model_fn", None, ["importing", "usage: exits.py", "exits.py:5"]),
    "a missing param": (
        "builders:fails",
        "depth: {of: 1}",
        ["has no num_classes", "builders.py", "in dig: return", "features: float32[?, 4]",
         "mode 'infer'", "params with depth, use_tpu", "float32[8,"],
    ),
    "a nested one": ("builders:fails", "depth: {}", [".depth has no of"]),
    "a factory without arguments": ("bert:model_fn_builder", None, ["num_labels", "factory:"]),
    "a factory with others": ("bert:model_fn_builder", "factory: {x: 1}", ["found x"]),
    "no factory": ("builders:dig", "factory: {params: {depth: {of: 1}}}", ["num_classes"]),
    "a flag that is not": ("mnasnet:model_fn", "flags: {depth: 3}", ["no flag depth"]),
    "a flag's value": ("mnasnet:model_fn", "flags: {data_format: rgb}", ["does not take 'rgb'"]),
    "no spec": ("builders:mean", "", ["returned a Tensor; expected an EstimatorSpec"]),
    "an open batch": ("hard_coded:model_fn", "{}", ["has no batch_size", "fixed batch"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_code_are_one_error_that_says_where(tmp_path, mistake):
    named, params, words = MISTAKES[mistake]
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    with pytest.raises(InputError) as caught:
        converted(tmp_path, checkpoint, named, "float32[?, 4]", params)
    assert [word for word in words if word not in str(caught.value)] == []
    assert not (tmp_path / "bundle").exists()


def test_values_of_a_checkpoint_that_is_gone_are_not_invented(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    with pytest.raises(InputError, match="value of table from checkpoint gs://gone"):
        converted(tmp_path, checkpoint, "builders:reads_values", "float32[?, 4]", "{}", build=True)


def test_sums_over_shards_of_the_models_own_are_refused(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    with pytest.raises(InputError, match="cross_replica_sum takes values from 2 shards"):
        converted(tmp_path, checkpoint, "builders:summed", "float32[?, 4]", build=True)


def test_the_same_code_and_checkpoint_give_the_same_digest(resnet_checkpoint, tmp_path):
    code = ModelCode(
        model_fn=CODE + "resnet:model_fn", **files(tmp_path, "float32[?, 8, 8, 1]", RESNET)
    )
    first, second = (model_source(code, resnet_checkpoint) for _ in range(2))
    assert first.digest() == second.digest()


def test_a_checkpoint_is_named_by_prefix_folder_or_meta(resnet_checkpoint, tmp_path):
    code = ModelCode(
        model_fn=CODE + "resnet:model_fn", **files(tmp_path, "float32[?, 8, 8, 1]", RESNET)
    )
    for path in (resnet_checkpoint + ".meta", os.path.dirname(resnet_checkpoint)):
        assert model_source(code, path).checkpoint == resnet_checkpoint
    with pytest.raises(InputError, match="no checkpoint at"):
        model_source(code, str(tmp_path))


def test_the_commands_take_code_of_the_current_folder(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "net/dense"))
    (tmp_path / "mine.py").write_text(
        "import tensorflow as tf\nimport beside\n\n"
        "def model_fn(features, labels, mode, params):\n"
        "    with tf.variable_scope('net'):\n"
        "        y = tf.layers.dense(features, beside.WIDTH)\n"
        "    found = {'y': y, 'mean': tf.reduce_mean(y)}\n"
        "    return tf.estimator.EstimatorSpec(mode, predictions=found)\n"
    )
    (tmp_path / "beside.py").write_text("WIDTH = 2\n")
    files(tmp_path, "features: float32[?, 4]")
    flags = [checkpoint, "--model-fn", "mine:model_fn", "--features", "features.yaml"]

    def command(name, *more):
        script = os.path.join(ROOT, "jobs", name + ".py")
        done = subprocess.run(
            [sys.executable, script, *flags, *more],
            cwd=str(tmp_path), capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    told = command("inspect")
    assert "model_fn with its checkpoint" in told and "y                float32[?, 2]" in told
    assert "note        output mean is left out: it is a scalar" in told
    flags_ = "--model-fn mine:model_fn \\ --features features.yaml \\ --out BUNDLE"
    assert " ".join(told.split()).endswith(flags_)
    result = json.loads(command("convert", "--out", "bundle"))
    assert result["outputs"] == ["y: float32[?, 2]"]


def test_a_plain_run_pads_fixed_batches_and_needs_no_unused_input(resnet_checkpoint, tmp_path):
    features = "features:\n  feature: float32[4, 8, 8, 1]\n  other: int32[4]\n"
    code = ModelCode(model_fn=CODE + "resnet:model_fn", **files(tmp_path, features, RESNET))
    found = reference_outputs(code, resnet_checkpoint, {"feature": images(6)})
    expected = resnet_plain(resnet_checkpoint, images(6))
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], 0, 1e-6)
    with pytest.raises(InputError, match="missing feature"):
        reference_outputs(code, resnet_checkpoint, {"other": np.zeros(3)})


def test_a_plain_run_that_would_be_wrong_is_none(tmp_path):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    code = ModelCode(build=CODE + "builders:dilated", **files(tmp_path, "float32[?, 8, 8, 1]"))
    with pytest.raises(InputError, match="computes depthwise without its dilations"):
        reference_outputs(code, checkpoint, {"features": images(2)})
    code = ModelCode(build=CODE + "builders:build", **files(tmp_path, "x: float32[?, 4]"))
    with pytest.raises(InputError, match="does not run here without a TPU: Restoring"):
        reference_outputs(code, checkpoint, {"x": np.zeros((2, 4), np.float32)})


def test_model_code_needs_tensorflow_1(tmp_path, monkeypatch):
    checkpoint = dense_checkpoint(tmp_path, (4, 2, "d"))
    monkeypatch.setattr(tf, "__version__", "2.21.0")
    with pytest.raises(InputError, match=r"needs TensorFlow 1\.15 .*; found TensorFlow 2\.21\.0"):
        converted(tmp_path, checkpoint, "builders:Model", "float32[?, 4]")
