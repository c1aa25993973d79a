"""Real TPU artifacts -> bundles, scored by the production Scorer against the run without a TPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import (
    InputError,
    MappingError,
    OutputConflictError,
    ParityError,
    UnsupportedOpsError,
)
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.proof.tolerance import Tolerance
from tests.conversion import tpu_models

TENSORS = {
    "inputs": {"image": "image:0"},
    "outputs": {"probabilities": "output_0_shard_0", "classes": "output_1_shard_0:0"},
}
VARIABLES = [
    "net/conv/kernel",
    "net/dense/bias",
    "net/dense/kernel",
    "net/norm/beta",
    "net/norm/gamma",
    "net/norm/moving_mean",
    "net/norm/moving_variance",
]


def options(artifacts, name, out, **changes):
    tensors = TENSORS if name.startswith("rewrite") else {}
    return ConvertOptions(source=getattr(artifacts, name), out=str(out), **{**tensors, **changes})


def scored(bundle, inputs):
    """Every row through the Scorer, 8 rows at a time."""
    scorer = Scorer.restore(bundle, 8)
    try:
        parts = [scorer.score({"image": inputs["image"][i : i + 8]}) for i in range(0, 20, 8)]
    finally:
        scorer.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# float32: within 1e-6 of the scale 1 of a probability. bfloat16: the model's constant 0.7 was
# rounded to bfloat16 (0.69921875) when the graph was built, which no conversion can undo.
@pytest.mark.parametrize(
    "name, kind, atol",
    [
        ("rewrite_float32", "meta_graph", 1e-6),
        ("rewrite_bfloat16", "meta_graph", 1e-3),
        ("tpu_float32", "tpu_saved_model", 1e-6),
        ("tpu_bfloat16", "tpu_saved_model", 1e-3),
        ("both_float32", "saved_model", 1e-6),  # the {serve} graph beside the {serve, tpu} one
        ("both_bfloat16", "saved_model", 1e-3),
    ],
)
def test_a_tpu_artifact_gives_the_predictions_of_the_model_without_a_tpu(
    artifacts, reference, tmp_path, name, kind, atol
):
    convert(options(artifacts, name, tmp_path / "bundle", optimize=False))
    bundle = Bundle.open(str(tmp_path / "bundle"))
    found = scored(bundle, reference[0])
    np.testing.assert_allclose(found["probabilities"], reference[1]["probabilities"], 0, atol)
    assert found["classes"].tolist() == reference[1]["classes"].tolist()
    assert bundle.manifest["source"]["kind"] == kind
    assert bundle.manifest["batch"]["kind"] == "dynamic"  # the rewrite graphs were traced with 8
    assert sorted(bundle.manifest["variables"]) == VARIABLES
    assert bundle.manifest["parity"]["reference"]["kind"] == "source graph"
    assert bundle.manifest["parity"]["outputs"]["probabilities"]["max_absdiff"] <= 1e-6


def test_the_manifest_says_what_happened_to_every_variable(artifacts, tmp_path):
    convert(options(artifacts, "rewrite_float32", tmp_path / "b", optimize=False))
    manifest = Bundle.open(str(tmp_path / "b")).manifest
    assert manifest["variables"]["net/conv/kernel"] == {
        "source": "net/conv/kernel",
        "dtype": "float32",
        "source_dtype": "float32",
        "shape": [3, 3, 1, 4],
    }
    assert manifest["dropped"]["global_step"] == "training step"
    assert manifest["dropped"]["net/conv/kernel/Adam_1"] == "optimizer slot (Adam)"
    assert len(manifest["dropped"]) == 13
    assert {"rewrite": "replicated_io", "count": 3} in manifest["rewrites"]
    assert manifest["tool"]["tensorflow"] == tf.__version__
    assert manifest["source"]["name"] == "float32.meta"


def test_the_same_source_gives_the_same_bundle(artifacts, tmp_path):
    digests = {
        convert(options(artifacts, "both_bfloat16", tmp_path / out))["digest"] for out in "ab"
    }
    assert len(digests) == 1


def test_renames_reach_graph_checkpoint_and_manifest(artifacts, reference_file, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rename: [{from: 'net/(.*)', to: 'gpu_net/\\1'}]")
    changes = {"rules": str(rules), "reference": reference_file, "optimize": False}
    result = convert(options(artifacts, "tpu_float32", tmp_path / "b", **changes))
    assert result["variables"] == {"kept": 7, "renamed": 7, "folded": 0, "dropped": 1}
    assert result["parity"]["passed"]
    path = str(tmp_path / "b" / "variables" / "variables")
    renamed = ["gpu_" + name for name in VARIABLES]
    assert [name for name, _ in tf.train.list_variables(path)] == renamed
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.loader.load(session, ["serve"], str(tmp_path / "b"))
        assert [one.op.name for one in tf.global_variables()] == renamed


def test_a_plain_loader_runs_a_bundle_and_its_graph_is_free_of_tpu_and_devices(
    artifacts, reference, tmp_path
):
    convert(options(artifacts, "tpu_bfloat16", tmp_path / "b"))
    with tf.Graph().as_default() as graph, tf.Session() as session:
        loaded = tf.saved_model.loader.load(session, ["serve"], str(tmp_path / "b"))
        signature = loaded.signature_def["serving_default"]
        found = session.run(
            signature.outputs["probabilities"].name,
            {signature.inputs["image"].name: reference[0]["image"]},
        )
    assert np.abs(found - reference[1]["probabilities"]).max() < 1e-3
    left = str(graph.as_graph_def())
    assert 'op: "TPU' not in left and "BFLOAT16" not in left and 'device: "' not in left
    assert "_tpu" not in left and "_output_shapes" not in left


def test_saved_model_cli_shows_a_bundle(artifacts, tmp_path):
    convert(options(artifacts, "tpu_float32", tmp_path / "b"))
    tool = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")
    command = [sys.executable, tool, "show", "--all", "--dir", str(tmp_path / "b")]
    shown = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode()
    assert "signature_def['serving_default']" in shown
    assert (
        "inputs['image'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, 8, 8, 1)"
        in shown
    )
    assert "shape: (-1, 3)" in shown


def test_parity_is_measured_recorded_and_can_be_repeated(artifacts, reference_file, tmp_path):
    changes = {"reference": reference_file}
    result = convert(options(artifacts, "rewrite_float32", tmp_path / "b", **changes))
    report = result["parity"]
    assert report["passed"] and report["outputs"]["probabilities"]["rows"] == 20
    assert report["outputs"]["probabilities"]["max_absdiff"] <= 1e-6
    assert report["outputs"]["probabilities"]["argmax_agreement"] == 1.0
    with np.load(str(tmp_path / "b" / "assets.extra" / "parity.npz"), allow_pickle=False) as golden:
        assert sorted(golden.files) == ["inputs/image", "outputs/classes", "outputs/probabilities"]
    assert Bundle.open(str(tmp_path / "b")).parity_passed


def test_a_bundle_that_fails_parity_is_not_written_unless_allowed(
    artifacts, reference_file, tmp_path
):
    changes = {"reference": reference_file, "tolerance": Tolerance(1e-9, 0.0)}
    with pytest.raises(ParityError, match="probabilities            FAILED"):
        convert(options(artifacts, "rewrite_bfloat16", tmp_path / "b", **changes))
    assert os.listdir(str(tmp_path)) == []
    changes["allow_parity_failure"] = True
    convert(options(artifacts, "rewrite_bfloat16", tmp_path / "b", **changes))
    assert not Bundle.open(str(tmp_path / "b")).parity_passed


def test_an_existing_folder_is_never_overwritten(artifacts, tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(OutputConflictError, match="exists already"):
        convert(options(artifacts, "rewrite_float32", tmp_path / "b"))


def test_variables_without_a_counterpart_stop_the_conversion(artifacts, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("drop: [{name: net/norm/gamma, reason: a mistake}]")
    with pytest.raises(MappingError, match=r"no source for  - net/norm/gamma  float32\[4\]"):
        convert(options(artifacts, "tpu_float32", tmp_path / "b", rules=str(rules)))


def test_lookup_tables_and_their_files_move_into_the_bundle(tmp_path):
    """A SavedModel that looks words up in a file and has one variable and no TPU op."""
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("red\ngreen\nblue\n")
    with tf.Graph().as_default(), tf.Session() as session:
        words = tf.placeholder(tf.string, [None], name="words")
        unused = tf.placeholder(tf.float32, [None], name="unused")
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )  # fmt: skip
        offset = tf.get_variable("offset", initializer=np.int64(10))
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        tf.saved_model.simple_save(
            session, str(tmp_path / "model"), {"words": words, "unused": unused},
            {"ids": table.lookup(words) + offset}, legacy_init_op=tf.tables_initializer(),
        )  # fmt: skip
    vocabulary.unlink()
    convert(ConvertOptions(source=str(tmp_path / "model"), out=str(tmp_path / "b")))
    bundle = Bundle.open(str(tmp_path / "b"))
    assert bundle.manifest["unused_inputs"] == ["unused"]
    assert "assets/words.txt" in bundle.manifest["files"]
    scorer = Scorer.restore(bundle, 4)
    found = scorer.score({"words": np.array([b"blue", b"red", b"mauve"], object)})
    scorer.close()
    assert found["ids"].tolist() == [12, 10, 13]


def save_graph(folder, build):
    """A MetaGraph and a checkpoint of what `build` makes of x; the output is named `out`."""
    with tf.Graph().as_default() as graph, tf.Session(
        config=tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    ) as session:
        x = tf.placeholder(tf.float32, [8, 8, 8, 2], name="x")
        with tf.variable_scope("", use_resource=True):
            w = tf.get_variable("w", initializer=np.ones([3, 3, 2, 1], np.float32))
            build(x, w)
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, os.path.join(str(folder), "m.ckpt"), write_meta_graph=False)
        tf.train.export_meta_graph(os.path.join(str(folder), "m.meta"), graph=graph)
    return os.path.join(str(folder), "m.meta")


def one_replica(compute):
    def build(x, w):
        tf.identity(tf.tpu.rewrite(lambda x: compute(x, w), [x])[0], name="out")

    return build


def named_for_two_cores(x, w):
    return tf.tpu.cross_replica_sum(x, [[0, 1]])


@pytest.mark.parametrize(
    "build, message",
    [
        (one_replica(named_for_two_cores), "CrossReplicaSum x1, .* not the graph's own"),
        (one_replica(lambda x, w: tf.nn.dropout(x, rate=0.5)), "RandomUniform x1"),
        (
            one_replica(lambda x, w: tf.nn.fused_batch_norm(x, w[0, 0, :, 0], w[0, 0, :, 0])[0]),
            "FusedBatchNorm.* uses the statistics of its batch",
        ),
    ],
    ids=["groups", "dropout", "training batch norm"],
)
def test_what_would_be_wrong_or_cannot_run_is_refused(tmp_path, build, message):
    path = save_graph(tmp_path, build)
    asked = ConvertOptions(path, str(tmp_path / "b"), inputs={"x": "x"}, outputs={"y": "out"})
    with pytest.raises(UnsupportedOpsError) as error:
        convert(asked)
    assert re.search(message, str(error.value).replace("\n", " "))
    assert not os.path.exists(str(tmp_path / "b"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"inputs": {"image": "imag:0"}}, "--input image=imag:0: no such tensor; nearest: image:0"),
        ({"outputs": {}}, "expected both --input and --output"),
        (
            {"inputs": {}, "outputs": {}},
            "--input image=image:0 --output output_0=output_0_shard_0:0,",
        ),
        ({"checkpoint": "/nowhere/model.ckpt"}, "no checkpoint at /nowhere/model.ckpt"),
        ({"rules": "/nowhere.yaml"}, "cannot read --rules /nowhere.yaml"),
        ({"reference": "/nowhere.npz"}, "cannot read --reference /nowhere.npz"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(artifacts, tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        convert(options(artifacts, "rewrite_float32", tmp_path / "b", **changes))
    assert message in str(error.value)


def test_a_signature_that_is_not_there_is_answered_with_those_that_are(artifacts, tmp_path):
    with pytest.raises(InputError, match="no signature 'wrong'; it has serving_default"):
        convert(options(artifacts, "tpu_float32", tmp_path / "b", signature="wrong"))


def test_a_graph_without_a_checkpoint_is_refused(tmp_path):
    path = tpu_models.save_rewrite_graph(str(tmp_path / "alone.meta"), tf.float32)
    with pytest.raises(InputError, match="has no checkpoint in it or beside it"):
        convert(ConvertOptions(path, str(tmp_path / "b"), **TENSORS))


def test_a_graph_whose_outputs_read_no_variable_needs_no_checkpoint(tmp_path):
    kernel = np.array([[1, 0, 2], [0, 3, 1]], np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [8, 2], name="x")
        tf.identity(tf.tpu.rewrite(lambda x: tf.matmul(x, kernel), [x])[0], name="y")
        tf.train.export_meta_graph(str(tmp_path / "frozen.meta"), graph=graph)
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        y = tf.matmul(x, kernel)
        tf.saved_model.simple_save(session, str(tmp_path / "saved"), {"x": x}, {"y": y})
    tensors = {"inputs": {"x": "x:0"}, "outputs": {"y": "y:0"}}
    rows = np.array([[1, 2], [3, 4], [-1, 0]], np.float32)
    for name, named in (("frozen.meta", tensors), ("saved", {})):
        bundle = str(tmp_path / ("bundle of " + name))
        convert(ConvertOptions(str(tmp_path / name), bundle, **named))
        assert Bundle.open(bundle).manifest["variables"] == {}
        assert Bundle.open(bundle).manifest["parity"]["passed"]
        scorer = Scorer.restore(Bundle.open(bundle), 4)
        found = scorer.score({"x": rows})["y"]
        scorer.close()
        assert found.tolist() == (rows @ kernel).tolist()
        with tf.Graph().as_default(), tf.Session() as session:
            loaded = tf.saved_model.loader.load(session, [tf.saved_model.SERVING], bundle)
            info = loaded.signature_def["serving_default"]
            feeds = {info.inputs["x"].name: rows}
            assert session.run(info.outputs["y"].name, feeds).tolist() == found.tolist()
