"""The first example: its README's commands are run as they stand, and their files looked into."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

pytestmark = [
    pytest.mark.skipif(sys.version_info >= (3, 8), reason="it trains with TensorFlow 1.15"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore"),  # TensorFlow 1.15's own, when it is imported
]

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLE = os.path.join(PROJECT, "examples", "01_digits")
SLOTS = ["", "/Adam", "/Adam_1"]


class Walk:
    """README.md's fenced `sh` blocks, each run once, in order, when a test first asks for it.

    They run as they stand in a folder of links to the project, so `build/demo` is a new one.
    """

    def __init__(self, folder):
        for name in ("batchinfer", "conversion", "examples", "jobs"):
            os.symlink(os.path.join(PROJECT, name), os.path.join(folder, name))
        os.symlink(sys.prefix, os.path.join(folder, ".venv"))
        self.folder = folder
        self.root = os.path.join(folder, "build", "demo")
        self._waiting = readme_blocks()
        self._done = []

    def through(self, script):
        """Run the blocks up to the one that calls `script`; the stdout of that block."""
        for block, stdout in self._done:
            if script in block:
                return stdout
        while True:
            block = self._waiting[0]
            self._done.append((block, self.run(block)))
            del self._waiting[0]
            if script in block:
                return self._done[-1][1]

    def run(self, block):
        finished = subprocess.run(
            ["bash", "-euc", block],
            cwd=self.folder,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, f"{block}\n{finished.stdout}\n{finished.stderr}"
        return finished.stdout


def readme_blocks():
    with open(os.path.join(EXAMPLE, "README.md"), encoding="utf-8") as file:
        return re.findall(r"^```sh\n(.*?)^```$", file.read(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return Walk(str(tmp_path_factory.mktemp("digits")))


@pytest.fixture
def load(monkeypatch):
    """Imports a module of the example, and forgets it and its neighbours again."""
    own = [name[:-3] for name in os.listdir(EXAMPLE) if name.endswith(".py")]
    monkeypatch.syspath_prepend(EXAMPLE)
    yield importlib.import_module
    for name in own:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tf():
    from batchinfer.tf1 import tf

    return tf


def test_training_recognises_more_than_95_percent_of_the_held_out_digits(walk):
    said = walk.through("train.py")
    assert float(re.search(r"held-out digits: (\S+)", said).group(1)) > 0.95


def test_the_checkpoint_holds_adams_slots_and_global_step_in_float32(walk, tf):
    walk.through("export_tpu.py")
    reader = tf.train.load_checkpoint(os.path.join(walk.root, "artifacts", "rewrite"))
    shapes = {
        "tpu_cnn_model/conv/kernel": [3, 3, 1, 32],
        "tpu_cnn_model/conv/bias": [32],
        "tpu_cnn_model/dense/kernel": [512, 10],
        "tpu_cnn_model/dense/bias": [10],
    }
    expected = {name + slot: shape for name, shape in shapes.items() for slot in SLOTS}
    expected.update({"beta1_power": [], "beta2_power": [], "global_step": []})
    assert expected == reader.get_variable_to_shape_map()
    dtypes = reader.get_variable_to_dtype_map()
    assert tf.int64 == dtypes.pop("global_step")
    assert {tf.float32} == set(dtypes.values())


def test_the_rewrite_metagraph_holds_tpu_ops_bfloat16_and_a_signature(walk, tf):
    walk.through("export_tpu.py")
    meta = tf.MetaGraphDef()
    with open(os.path.join(walk.root, "artifacts", "rewrite", "predict.meta"), "rb") as file:
        meta.ParseFromString(file.read())
    ops = Counter(node.op for node in meta.graph_def.node)
    tpu = {op: count for op, count in ops.items() if "TPU" in op}
    assert tpu == {
        "ConfigureDistributedTPU": 1,
        "ShutdownDistributedTPU": 1,
        "TPUReplicateMetadata": 1,
        "TPUReplicatedInput": 1,
        "TPUReplicatedOutput": 2,
        "TPUCompilationResult": 1,
    }
    assert tf.bfloat16 == convolution_dtype(meta.graph_def.node)
    signature = meta.signature_def["serving_default"]
    assert tensors(signature.inputs) == {"image": ("image:0", [128, 8, 8, 1])}
    assert tensors(signature.outputs) == {
        "probabilities": ("probabilities:0", [128, 10]),
        "classes": ("classes:0", [128]),
    }


def convolution_dtype(nodes):
    (dtype,) = [node.attr["T"].type for node in nodes if node.op == "Conv2D"]
    return dtype


def tensors(infos):
    return {
        name: (info.name, [dim.size for dim in info.tensor_shape.dim])
        for name, info in infos.items()
    }


def test_the_saved_model_has_only_the_tpu_graph_its_body_in_the_function_library(walk, tf):
    walk.through("export_tpu.py")
    from tensorflow.core.protobuf import saved_model_pb2

    folder = os.path.join(walk.root, "artifacts", "saved_model_tpu")
    assert sorted(os.listdir(folder)) == ["saved_model.pb", "variables"]
    saved_model = saved_model_pb2.SavedModel()
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved_model.ParseFromString(file.read())
    (meta,) = saved_model.meta_graphs
    assert {"serve", "tpu"} == set(meta.meta_info_def.tags)
    assert sum(node.op == "TPUPartitionedCall" for node in meta.graph_def.node) == 1
    (function,) = meta.graph_def.library.function
    assert tf.bfloat16 == convolution_dtype(function.node_def)
    assert "TPUReplicateMetadata" in {node.op for node in function.node_def}
    assert {
        "global_step",
        "tpu_cnn_model/conv/kernel",
        "tpu_cnn_model/conv/bias",
        "tpu_cnn_model/dense/kernel",
        "tpu_cnn_model/dense/bias",
    } == set(tf.train.load_checkpoint(folder + "/variables/variables").get_variable_to_shape_map())


def test_the_reference_is_what_numpy_makes_of_the_checkpoint(walk, tf):
    walk.through("export_tpu.py")
    reference = np.load(os.path.join(walk.root, "reference.npz"))
    image = reference["inputs/image"]
    assert (np.uint8, (360, 8, 8, 1)) == (image.dtype, image.shape)
    read = tf.train.load_checkpoint(os.path.join(walk.root, "train")).get_tensor
    expected = softmax_cnn(image / 16.0, lambda name: read("tpu_cnn_model/" + name))
    assert np.abs(expected - reference["outputs/probabilities"]).max() < 1e-5
    assert np.float32 == reference["outputs/probabilities"].dtype
    assert np.int32 == reference["outputs/classes"].dtype
    assert np.array_equal(expected.argmax(axis=1), reference["outputs/classes"])


def softmax_cnn(images, read):
    """The network in float64 numpy: conv 3x3 same, relu, max-pool 2x2, dense, softmax."""
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    net = np.concatenate(windows, axis=3) @ read("conv/kernel").reshape(9, 32) + read("conv/bias")
    net = np.maximum(net, 0).reshape(-1, 4, 2, 4, 2, 32).max(axis=(2, 4)).reshape(-1, 512)
    logits = net @ read("dense/kernel") + read("dense/bias")
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_the_data_is_100000_rows_in_20_files_of_four_row_groups(walk):
    walk.through("make_data.py")
    folder = os.path.join(walk.root, "data")
    names = sorted(os.listdir(folder))
    assert [f"digits-{number:05d}.parquet" for number in range(20)] == names
    files = [pq.ParquetFile(os.path.join(folder, name)) for name in names]
    groups = [
        [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        for file in files
    ]
    assert groups == [[1250] * 4] * 20
    columns = [("id", "int64"), ("label", "int8"), ("pixels", "list<item: uint8>")]
    assert [columns] * 20 == [
        [(field.name, str(field.type)) for field in file.schema_arrow] for file in files
    ]


def test_data_of_other_sizes_is_complete_and_the_same_each_time(load, tmp_path):
    make_data = load("make_data")
    for name in ("a", "b"):
        make_data.main(["--dir", str(tmp_path / name), "--rows", "1000", "--files", "200"])
    tables = [pq.read_table(str(tmp_path / name / "data"), use_threads=False) for name in "ab"]
    assert tables[0].equals(tables[1])
    assert list(range(1000)) == tables[0]["id"].to_pylist()
    assert len(os.listdir(str(tmp_path / "a" / "data"))) == 200
    _, held_out = load("digits").load()
    truth = {image.tobytes(): label for image, label in zip(held_out.images, held_out.labels)}
    for row in tables[0].to_pylist():
        assert truth[bytes(row["pixels"])] == row["label"]


@pytest.mark.parametrize(
    "found, problems",
    [
        ([3, 1, 2], []),
        ([1, 3], ["1 ids are missing: [2]..."]),
        ([1, 2, 2, 3], ["1 ids are there more than once: [2]..."]),
        ([1, 2, 9], ["1 ids are missing: [3]...", "1 ids are not in the input: [9]..."]),
    ],
)
def test_check_says_which_ids_are_wrong(load, found, problems):
    check = load("check")
    assert problems == check.problems_with_ids(np.array([1, 2, 3]), np.array(found))


def test_check_measures_accuracy_and_the_largest_difference(load):
    check = load("check")
    reference = {"probabilities": np.array([[0.75, 0.25], [0.5, 0.5]]), "classes": np.array([0, 0])}
    found = {"probabilities": np.array([[0.75, 0.25], [0.25, 0.75]]), "classes": np.array([0, 1])}
    assert check.compare({"label": np.array([0, 1])}, found, reference) == {
        "accuracy": 1.0,
        "max_absdiff": 0.25,
        "classes_differ": 1,
    }


@pytest.mark.parametrize(
    "max_absdiff, classes_differ, problems",
    [
        (1e-5, 0, []),
        (2e-5, 0, ["max_absdiff of probabilities is 2e-05, over atol 1e-05"]),
        (np.nan, 0, ["max_absdiff of probabilities is nan, over atol 1e-05"]),
        (0.0, 3, ["3 classes are not those of the model without TPU"]),
    ],
)
def test_check_refuses_what_is_more_than_rounding(load, max_absdiff, classes_differ, problems):
    found = {"max_absdiff": max_absdiff, "classes_differ": classes_differ}
    assert load("check").problems_with_values(found) == problems


def test_the_demo_runs_the_commands_of_the_readme(load):
    demo = load("demo").steps("build/demo", rows=100000, files=20, num_gpus=2)
    in_readme = [
        shlex.split(line)[1:]
        for block in readme_blocks()
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith(".venv/bin/python ")
    ]
    without_default = [
        " ".join(command).replace(" --dir build/demo", "").split(" ") for _, command in demo
    ]
    assert in_readme == without_default


def test_the_demo_starts_over_without_touching_what_is_not_its_own(load, tmp_path):
    for name in ("bundle", "predictions", "notes"):
        (tmp_path / name).mkdir()
    load("demo").start_over(str(tmp_path))
    assert os.listdir(str(tmp_path)) == ["notes"]


def test_the_demo_prints_a_command_and_what_it_says_and_stops_when_it_fails(load, capfd):
    demo = load("demo")
    assert demo.run(["-c", "print('one\\ntwo')"]) == ["one", "two"]
    with pytest.raises(subprocess.CalledProcessError):
        demo.run(["-c", "raise SystemExit(75)"])
    assert (
        capfd.readouterr().out
        == "$ python -c print('one\\ntwo')\none\ntwo\n$ python -c raise SystemExit(75)\n"
    )


def test_the_demo_shows_a_json_result_entry_by_entry(load):
    demo = load("demo")
    assert demo.readable("accuracy 0.97") == "accuracy 0.97"
    result = '{"rows_in": 3, "stages": {"read": 1}}'
    assert demo.readable(result) == '  rows_in: 3\n  stages: {"read": 1}'
    assert demo.WIDTH + len("...") == len(demo.readable('{"long": "%s"}' % ("x" * 200)))


def test_every_row_is_scored_once_and_equals_plain_tensorflow(walk):
    said = walk.through("check.py")
    assert "100000 in, 100000 out" in said
    assert " 0 classes differ" in said
    scored = json.loads(walk.through("score.py").splitlines()[-1])
    assert (scored["rows_in"], scored["rows_out"], scored["rows_rejected"]) == (100000, 100000, 0)


def test_scoring_again_changes_no_file(walk):
    walk.through("check.py")
    folder = os.path.join(walk.root, "predictions")
    before = parts(folder)
    walk.run(next(block for block in readme_blocks() if "score.py" in block))
    assert before == parts(folder)


def parts(folder):
    names = [name for name in os.listdir(folder) if name.startswith("part-")]
    return {name: os.stat(os.path.join(folder, name)).st_mtime_ns for name in names}
