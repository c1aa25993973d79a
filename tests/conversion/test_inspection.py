"""What `jobs/inspect.py` shows, and that the command it gives works."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace

from batchinfer.tf1 import tf
from conversion.inspection import OpCount, inspect
from conversion.inspection_text import as_text
from conversion.lowering import Request
from conversion.options import ModelCode
from conversion.source import open_source

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def looked_at(path, **tensors):
    return inspect(
        open_source(path), Request(tensors.get("inputs", {}), tensors.get("outputs", {}))
    )


def run_job(*words):
    return subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True)


def test_a_bare_graph_is_shown_with_its_candidates_and_the_fate_of_each_op(artifacts):
    found = looked_at(artifacts.rewrite_bfloat16)
    assert found.candidates == {
        "inputs": {"image": "image:0  float32[8, 8, 8, 1]"},
        "outputs": {
            "output_0": "output_0_shard_0:0  float32[8, 3]",
            "output_1": "output_1_shard_0:0  int64[8]",
        },
    }
    ops = {one.op: one for one in found.ops}
    leaving = OpCount("TPUReplicatedOutput", 2, 2, "replaced by Identity")
    assert ops["TPUReplicatedOutput"] == leaving
    assert ops["TPUReplicateMetadata"].fate == "deleted"
    assert ops["Conv2D"].fate == "kept"
    assert ops["RandomUniform"] == OpCount("RandomUniform", 2, 0, "not needed by the outputs")
    fates = {one.spec.name: one.fate for one in found.variables}
    assert fates["net/conv/kernel"] == "kept"
    assert fates["net/conv/kernel/Adam"] == "dropped: optimizer slot (Adam)"
    assert found.problems == ()


def test_a_tpu_saved_model_shows_shapes_that_are_only_known_after_surgery(artifacts):
    found = looked_at(artifacts.tpu_float32)
    outputs = found.signatures["serving_default"]["outputs"]
    assert outputs["probabilities"] == "TPUPartitionedCall:2  float32 of unknown rank"
    assert found.bundle["outputs"]["probabilities"] == "float32[?, 3]"


def test_the_text_fits_a_terminal_except_for_names_and_paths(artifacts):
    text = as_text(looked_at(artifacts.rewrite_bfloat16))
    wide = [line for line in text.splitlines() if len(line) > 100 and artifacts.folder not in line]
    assert wide == []


def test_what_changes_inside_the_graph_is_shown_with_its_reason(artifacts):
    found = looked_at(artifacts.rewrite_bfloat16)
    assert found.rewrites["retype_bfloat16"] > 0
    assert "sweep" not in found.rewrites
    text = as_text(found)
    assert "retype_bfloat16" in text and "computes in float32 what the TPU" in text


def test_many_variables_that_go_for_one_reason_take_one_line(artifacts):
    text = as_text(looked_at(artifacts.rewrite_float32))
    assert "  10 such as net/conv/kernel/Adam  dropped: optimizer slot (Adam)" in text
    assert "  net/norm/gamma " in text
    assert "  global_step " in text  # the only one of its kind


def test_the_command_repeats_what_was_asked_for(artifacts):
    code = ModelCode(model_fn="package.module:model_fn", params="p.yaml", mode="eval")
    source = replace(open_source(artifacts.tpu_float32), code=code)
    request = Request({}, {}, weights="ema", precision="float16", target="cpu")
    found = inspect(source, request, "rules.yaml")
    assert found.command == (
        f"python jobs/convert.py {artifacts.tpu_float32} --model-fn package.module:model_fn "
        "--params p.yaml --mode eval --weights ema --precision float16 --target cpu "
        "--rules rules.yaml --out BUNDLE"
    )


def test_the_command_it_gives_converts(artifacts, tmp_path):
    command = shlex.split(looked_at(artifacts.rewrite_float32).command)
    assert command[:2] == ["python", "jobs/convert.py"]
    done = run_job(*[str(tmp_path / "b") if word == "BUNDLE" else word for word in command[1:]])
    assert done.returncode == 0, done.stderr.decode()
    result = json.loads(done.stdout.decode())
    assert result["source"] == "meta_graph" and result["parity"]["passed"]
    assert "passed: compared with source graph" in done.stderr.decode()
    assert os.path.isfile(str(tmp_path / "b" / "saved_model.pb"))


def test_the_command_line_inspects_and_an_unusable_path_ends_with_status_2(artifacts):
    done = run_job("jobs/inspect.py", artifacts.tpu_float32, "--json")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout.decode())["kind"] == "tpu_saved_model"
    done = run_job("jobs/inspect.py", "/nowhere")
    assert done.returncode == 2
    assert b"InputError: /nowhere does not exist; expected a SavedModel folder" in done.stderr


def test_a_checkpoint_alone_is_listed_and_said_not_to_be_enough(artifacts):
    found = looked_at(artifacts.checkpoint)
    assert len(found.variables) == 20
    assert {one.spec.name for one in found.variables if one.fate == "model variable"} == {
        "net/conv/kernel",
        "net/dense/bias",
        "net/dense/kernel",
        "net/norm/beta",
        "net/norm/gamma",
        "net/norm/moving_mean",
        "net/norm/moving_variance",
    }
    assert "checkpoint alone" in found.problems[0]


def test_a_conversion_that_stops_late_shows_no_false_verdicts(tmp_path):
    config = tf.ConfigProto(graph_options=tf.GraphOptions(place_pruned_graph=True))
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        x = tf.placeholder(tf.float32, [8, 3], name="x")
        keep = tf.placeholder(tf.float32, [], name="keep")
        w = tf.get_variable("w", [3], use_resource=True)
        tf.identity(tf.tpu.rewrite(lambda x, k: x * k * w, [x, keep])[0], name="out")
        session.run(w.initializer)
        prefix = tf.train.Saver().save(session, str(tmp_path / "m"), write_meta_graph=False)
        tf.train.export_meta_graph(prefix + ".meta")
    found = looked_at(prefix + ".meta", inputs={"x": "x"}, outputs={"y": "out"})
    (problem,) = found.problems
    assert "the outputs need 1 placeholder(s) that are no inputs:\n  keep: float32[]" in problem
    ops = {one.op: one.fate for one in found.ops}
    assert ops["TPUReplicatedOutput"] == "replaced by Identity"
    assert not [op for op, fate in ops.items() if fate.startswith("REFUSED")]
    assert [one.fate for one in found.variables] == ["kept"]
