"""Signatures that TF 1.15 writes: sparse and string inputs, several of them, tables, any dtype."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.bundle import Bundle
from batchinfer.driver import run
from batchinfer.errors import InputError, MappingError
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from batchinfer.ragged import Ragged
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.inspection import inspect
from conversion.lowering import Request
from conversion.options import ConvertOptions
from conversion.proof.tolerance import Tolerance
from conversion.source import open_source
from conversion.tf_internals import SavedModel
from tests.support.threads import ThreadBackend

IDS = [[1, 2, 3], [4], [], [9, 9]]
WEIGHTS = [[0.5, 1.0, 2.0], [1.0], [], [0.25, 0.75]]
TAGS = [["a", "?"], [], ["b"], ["a", "b"]]


def save(folder, build, signatures=None):
    """A SavedModel of what `build` gives: inputs and outputs, or those of several signatures."""
    folder = str(folder)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        built = build()
        session.run([tf.global_variables_initializer(), tf.tables_initializer()])
        built = built if signatures else {"serving_default": built}
        builder = tf.saved_model.Builder(folder)
        builder.add_meta_graph_and_variables(
            session,
            [tf.saved_model.SERVING],
            {name: signature(*tensors) for name, tensors in built.items()},
            assets_collection=tf.get_collection(tf.GraphKeys.ASSET_FILEPATHS),
            main_op=tf.tables_initializer(),
        )
        builder.save()
    return folder


def signature(inputs, outputs, method=tf.saved_model.PREDICT_METHOD_NAME):
    info = tf.saved_model.build_tensor_info
    return tf.saved_model.build_signature_def(
        {name: info(one) for name, one in inputs.items()},
        {name: info(one) for name, one in outputs.items()},
        method,
    )


def direct(folder, feeds, fetch):
    """TensorFlow itself on the SavedModel; lists of different lengths as SparseTensorValues."""
    with tf.Graph().as_default() as graph, tf.Session() as session:
        tf.saved_model.loader.load(session, [tf.saved_model.SERVING], folder)
        fed = {graph.get_tensor_by_name(name): value for name, value in feeds.items()}
        return session.run(fetch, fed)


def flat(rows):
    return [value for row in rows for value in row]


def sparse(name, rows, dtype, width=None):
    """What is fed for the SparseTensor `name` of these rows."""
    indices = [[i, j] for i, row in enumerate(rows) for j in range(len(row))]
    return {
        f"{name}/indices:0": np.array(indices, np.int64).reshape(-1, 2),
        f"{name}/values:0": np.array(flat(rows), dtype),
        f"{name}/shape:0": [len(rows), width or max(map(len, rows))],
    }


def ragged(rows, dtype):
    return Ragged.of(np.array(flat(rows), dtype), np.array([len(row) for row in rows]))


def score(bundle, feeds, batch_rows=4):
    scorer = Scorer.restore(Bundle.open(bundle), batch_rows)
    try:
        return scorer.score(feeds)
    finally:
        scorer.close()


def fixed_width(name, dtype, width):
    """A SparseTensor that says its width; sparse_placeholder forgets that with an open batch."""
    return tf.sparse.SparseTensor(
        tf.placeholder(tf.int64, [None, 2], name=name + "/indices"),
        tf.placeholder(dtype, [None], name=name + "/values"),
        tf.stack([tf.placeholder(tf.int64, [], name=name + "/rows"), width], name=name + "/shape"),
    )


def wide():
    """A wide model: weighted embeddings of ids, hits of words in a vocabulary."""
    ids = tf.sparse_placeholder(tf.int64, name="ids")
    weights = tf.sparse_placeholder(tf.float32, name="weights")
    tags = fixed_width("tags", tf.string, 4)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2], tf.int64)),
        default_value=0,
    )
    embedding = tf.get_variable("embedding", [10, 3])
    product = tf.sparse.SparseTensor(
        ids.indices, tf.gather(embedding[:, 0], ids.values) * weights.values, ids.dense_shape
    )
    found = tf.sparse.SparseTensor(tags.indices, table.lookup(tags.values), tags.dense_shape)
    count = tf.sparse.reduce_sum(
        tf.sparse.SparseTensor(ids.indices, tf.ones_like(ids.values), ids.dense_shape), axis=1
    )
    inputs = {"ids": ids, "weights": weights, "tags": tags}
    return inputs, {
        "sum": tf.reshape(tf.sparse.reduce_sum(product, axis=1), [-1]),
        "hits": tf.sparse.to_dense(found, default_value=-1),
        "count": tf.reshape(count, [-1]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    path = save(folder / "model", wide)
    convert(ConvertOptions(path, str(folder / "bundle")))
    return path, str(folder / "bundle")


def fetched(path, ids=IDS, weights=WEIGHTS, tags=TAGS):
    definition = open_source(path).meta_graph.signature_def["serving_default"]
    names = {name: info.name for name, info in definition.outputs.items()}
    feeds = {**sparse("ids", ids, np.int64), **sparse("weights", weights, np.float32),
             **sparse("tags", tags, object, 4)}  # fmt: skip
    return direct(path, feeds, names)


def rows_of(ids=IDS, weights=WEIGHTS, tags=TAGS):
    return {"ids": ragged(ids, np.int64), "weights": ragged(weights, np.float32),
            "tags": ragged(tags, object)}  # fmt: skip


def test_sparse_inputs_are_fed_from_rows_of_different_lengths(wide_model):
    path, bundle = wide_model
    assert list(map(str, Bundle.open(bundle).signature.inputs)) == [
        "ids: ragged int64[?, ?]", "tags: ragged string[?, 4]", "weights: ragged float32[?, ?]",
    ]  # fmt: skip
    found = score(bundle, rows_of())
    assert found["hits"].tolist() == [[1, 0, -1, -1], [-1] * 4, [2, -1, -1, -1], [1, 2, -1, -1]]
    assert found["count"].tolist() == [3, 1, 0, 2]
    expected = fetched(path)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert np.std(expected["sum"]) > 0.1


@pytest.mark.parametrize("rows", [[[]] * 3, [[1], [], []], [[], [], [1, 2, 3, 4]]])
def test_empty_rows_wherever_they_are(wide_model, rows):
    path, bundle = wide_model
    weights = [[0.5] * len(row) for row in rows]
    tags = [["a"] * len(row) for row in rows]
    found = score(bundle, rows_of(rows, weights, tags), batch_rows=5)
    for name, array in fetched(path, rows, weights, tags).items():
        np.testing.assert_array_equal(found[name], array)


def test_a_reference_of_sparse_inputs_is_padded_rows_and_their_lengths(wide_model, tmp_path):
    path, _ = wide_model
    arrays = {}
    for name, rows in rows_of().items():
        padded = rows.padded()
        arrays[f"inputs/{name}"] = padded.astype("S1") if padded.dtype == object else padded
        arrays[f"inputs/{name}/lengths"] = rows.lengths
    outputs = {f"outputs/{name}": array for name, array in fetched(path).items()}
    np.savez(str(tmp_path / "reference.npz"), **arrays, **outputs)
    options = {"reference": str(tmp_path / "reference.npz"), "tolerance": Tolerance(0.0, 0.0)}
    assert convert(ConvertOptions(path, str(tmp_path / "one"), **options))["parity"]["passed"]
    with np.load(str(tmp_path / "one" / "assets.extra" / "parity.npz")) as golden:
        assert golden["inputs/ids/lengths"].tolist() == [3, 1, 0, 2]
    del arrays["inputs/ids/lengths"]
    np.savez(str(tmp_path / "reference.npz"), **arrays, **outputs)
    with pytest.raises(InputError, match="expected inputs/ids/lengths beside inputs/ids"):
        convert(ConvertOptions(path, str(tmp_path / "two"), **options))


def test_a_whole_run_scores_list_columns_and_sets_bad_rows_apart(wide_model, tmp_path):
    path, bundle = wide_model
    rows = 700
    random = np.random.RandomState(0)
    lengths = random.randint(0, 4, rows)
    ids = [random.randint(0, 10, n).tolist() for n in lengths]
    weights = [random.rand(n).astype(np.float32).tolist() for n in lengths]
    tags = [random.choice(["a", "b", "c"], n).tolist() for n in lengths]
    expected = fetched(path, ids, weights, tags)
    broken = {"ids": list(ids), "weights": list(weights), "tags": list(tags)}
    broken["ids"][5], broken["weights"][6], broken["tags"][7] = None, [None], ["a"] * 5
    table = pa.table({
        "id": pa.array(range(rows)),
        "ids": pa.array(broken["ids"], pa.list_(pa.int32())),
        "weights": pa.array(broken["weights"], pa.list_(pa.float32())),
        "tags": pa.array(broken["tags"], pa.list_(pa.string())),
    })  # fmt: skip
    (tmp_path / "data").mkdir()
    pq.write_table(table, str(tmp_path / "data" / "rows.parquet"), row_group_size=100)
    options = ScoreOptions(
        bundle=bundle, inputs=(str(tmp_path / "data"),), output=str(tmp_path / "out"), keep=("id",),
        batch_rows=64, allow_unproven=True,
    )  # fmt: skip
    report = run(options, ClusterOptions(), FaultOptions(), ThreadBackend().backend())
    assert (report["rows_out"], report["rows_rejected"]) == (697, 3)
    parts = [name for name in sorted(os.listdir(str(tmp_path / "out"))) if name.startswith("part-")]
    written = pa.concat_tables(pq.read_table(str(tmp_path / "out" / name)) for name in parts)
    good = [row for row in range(rows) if row not in (5, 6, 7)]
    assert written.column("id").to_pylist() == good
    assert written.column("count").to_pylist() == expected["count"][good].tolist()
    np.testing.assert_array_equal(written.column("sum").to_numpy(), expected["sum"][good])
    assert written.column("hits").to_pylist() == expected["hits"][good].tolist()
    folder = tmp_path / "out" / "_batchinfer" / "rejects"
    reasons = pq.read_table(str(folder / os.listdir(str(folder))[0])).column("_reason").to_pylist()
    assert reasons == [
        "ids: null", "weights: null inside the list",
        "tags: list of 5 values, expected at most 4",
    ]  # fmt: skip


def test_a_graph_that_reads_only_the_shape_of_a_sparse_input_still_takes_its_rows(tmp_path):
    def build():
        x = tf.sparse_placeholder(tf.float32, name="x")
        bias = tf.get_variable("bias", [], initializer=tf.ones_initializer())
        return {"x": x}, {"y": tf.fill(x.dense_shape[:1], bias)}

    convert(ConvertOptions(save(tmp_path / "model", build), str(tmp_path / "bundle")))
    found = score(str(tmp_path / "bundle"), {"x": ragged([[1.0], [], [2.0]], np.float32)})
    assert found["y"].tolist() == [1.0, 1.0, 1.0]


def test_sparse_tensors_that_rows_cannot_feed_or_give_are_refused(tmp_path):
    def three():
        x = tf.sparse_placeholder(tf.float32, [1, 2, 2], name="x")
        w = tf.get_variable("w", [])
        return {"x": x}, {"y": tf.sparse.reduce_sum(x, axis=[1, 2]) * w}

    def out():
        x = tf.sparse_placeholder(tf.float32, [None, 2], name="x")
        w = tf.get_variable("w", [])
        return {"x": x}, {"y": x, "z": tf.sparse.reduce_sum(x, axis=1) * w}

    for build, words in (
        (three, "x is a sparse tensor of 3 dimensions"),
        (out, "output y is a SparseTensor, whose values do not come row by row"),
    ):
        path = save(tmp_path / build.__name__, build)
        with pytest.raises(InputError, match=words):
            convert(ConvertOptions(path, str(tmp_path / "bundle")))
        problems = inspect(open_source(path), Request({}, {})).problems
        assert words in problems[0]


def words(by_number):
    numbers = tf.constant(list(by_number), tf.int64)
    pairs = tf.lookup.KeyValueTensorInitializer(numbers, list(by_number.values()))
    return tf.lookup.StaticHashTable(pairs, default_value="?")


def several():
    x = tf.placeholder(tf.float32, [None, 2], name="x")
    examples = tf.placeholder(tf.string, [None], name="examples")
    parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([2], tf.float32)})["x"]
    w = tf.get_variable("w", [2, 2])
    table = words({0: "no", 1: "yes"})
    scores = {"x": tf.nn.softmax(x @ w), "parsed": tf.nn.softmax(parsed @ w)}
    classes = tf.tile(table.lookup(tf.constant([[0, 1]], tf.int64)), [tf.shape(parsed)[0], 1])
    classify = tf.saved_model.CLASSIFY_METHOD_NAME
    regress = tf.saved_model.REGRESS_METHOD_NAME
    return {
        "predict": ({"x": x}, {"x": scores["x"]}),
        "classify": (
            {"inputs": examples}, {"classes": classes, "scores": scores["parsed"]}, classify,
        ),
        "regress": ({"inputs": examples}, {"outputs": scores["parsed"][:, 0]}, regress),
    }  # fmt: skip


@pytest.fixture(scope="module")
def several_model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("several") / "model", several, signatures=True)


def example(values):
    feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
    features = tf.train.Features(feature={"x": feature})
    return tf.train.Example(features=features).SerializeToString()


def test_a_signature_is_picked_by_name_and_all_are_listed(several_model, tmp_path):
    rows = np.array([[1.0, 2.0], [3.0, -1.0]], np.float32)
    expected = direct(several_model, {"x:0": rows}, "Softmax:0")
    examples = np.array([example(row) for row in rows], object)
    for name, feeds in (("predict", {"x": rows}), ("classify", {"inputs": examples}),
                        ("regress", {"inputs": examples})):  # fmt: skip
        bundle = str(tmp_path / name)
        result = convert(ConvertOptions(several_model, bundle, signature=name))
        assert result["signature_def"] == name
        found = score(bundle, feeds, batch_rows=2)
        if name == "regress":
            np.testing.assert_array_equal(found["outputs"], expected[:, 0])
        elif name == "classify":
            np.testing.assert_array_equal(found["scores"], expected)
            assert found["classes"].tolist() == [[b"no", b"yes"]] * 2
        else:  # input and output have one name
            np.testing.assert_array_equal(found["x"], expected)
    with pytest.raises(InputError, match="it has classify, predict, regress"):
        convert(ConvertOptions(several_model, str(tmp_path / "none")))
    listed = inspect(open_source(several_model), Request({}, {}, "predict")).signatures
    assert list(listed) == ["classify", "predict", "regress"]


def towers():
    """Two signatures with a variable each; a third variable is read by none."""
    x = tf.placeholder(tf.float32, [None, 2], name="x")
    tf.get_variable("unread", [2])
    return {
        name: ({"x": x}, {"y": tf.matmul(x, tf.get_variable(name, [2, 3]))}) for name in ("a", "b")
    }


def test_what_only_another_signature_reads_is_dropped_and_the_rest_is_not(tmp_path):
    path = save(tmp_path / "model", towers, signatures=True)
    with pytest.raises(MappingError) as error:
        convert(ConvertOptions(path, str(tmp_path / "refused"), signature="a"))
    assert "no rule for    + unread" in str(error.value) and "+ b" not in str(error.value)
    rules = tmp_path / "rules.json"
    rules.write_text('{"drop": [{"name": "unread", "reason": "never used"}]}')
    for name, other in ("ab", "ba"):
        bundle = str(tmp_path / name)
        convert(ConvertOptions(path, bundle, signature=name, rules=str(rules)))
        manifest = Bundle.open(bundle).manifest
        assert list(manifest["variables"]) == [name]
        assert manifest["dropped"][other] == (
            "not read by the outputs; another signature of the source reads it"
        )


def test_the_only_signature_is_taken_whatever_its_name(tmp_path):
    def build():
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        return {"predict_images": ({"x": x}, {"y": x @ tf.get_variable("w", [2, 2])})}

    path = save(tmp_path / "model", build, signatures=True)
    model = SavedModel()
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        model.ParseFromString(file.read())
    init = model.meta_graphs[0].signature_def["__saved_model_init_op"]  # as newer savers write it
    init.outputs["__saved_model_init_op"].name = "init"
    with open(os.path.join(path, "saved_model.pb"), "wb") as file:
        file.write(model.SerializeToString())
    assert list(inspect(open_source(path), Request({}, {})).signatures) == ["predict_images"]
    result = convert(ConvertOptions(path, str(tmp_path / "bundle")))
    assert result["signature_def"] == "predict_images"
    manifest = Bundle.open(str(tmp_path / "bundle")).manifest
    assert manifest["source"]["signature_def"] == "predict_images"


DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


def test_inputs_and_outputs_of_every_dtype(tmp_path):
    def build():
        inputs = {name: tf.placeholder(name, [None, 2], name=name) for name in DTYPES}
        inputs["string"] = tf.placeholder(tf.string, [None, 2], name="string")
        w = tf.get_variable("w", [], initializer=tf.ones_initializer())
        outputs = {
            f"{name}_out": tf.reverse(one, [1]) if name == "string" else tf.cast(
                tf.cast(one, tf.float64) * tf.cast(w, tf.float64), name)
            for name, one in inputs.items()
        }  # fmt: skip
        return inputs, outputs

    convert(ConvertOptions(save(tmp_path / "model", build), str(tmp_path / "bundle")))
    feeds = {name: np.array([[0, 1], [1, 1]]).astype(name) for name in DTYPES}
    feeds["string"] = np.array([[b"", b"a\0"], [b"\xff", b"b"]], object)
    found = score(str(tmp_path / "bundle"), feeds, batch_rows=2)
    for name in DTYPES:
        assert found[f"{name}_out"].dtype == np.dtype(name)
        np.testing.assert_array_equal(found[f"{name}_out"], feeds[name])
    assert found["string_out"].tolist() == [[b"a\0", b""], [b"b", b"\xff"]]


def test_tables_from_files_constants_and_inside_functions(tmp_path):
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")
    (tmp_path / "names.txt").write_text("rot\ngruen\nblau\n")

    def build():
        word = tf.placeholder(tf.string, [None], name="word")
        ids = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(tmp_path / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
            ), default_value=2,
        )  # fmt: skip
        names = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                str(tmp_path / "names.txt"), tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER,
                tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
            ), default_value="?",
        )  # fmt: skip
        size = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["red"], [7]), default_value=-1
        )
        w = tf.get_variable("w", [3], initializer=tf.constant_initializer([1.0, 2.0, 3.0]))

        @tf.function
        def inside(word):
            return size.lookup(word), tf.gather(w, ids.lookup(word))

        number, weight = inside(word)
        return {"word": word}, {
            "number": number, "weight": weight, "name": names.lookup(ids.lookup(word)),
        }  # fmt: skip

    path = save(tmp_path / "model", build)
    for name in ("words.txt", "names.txt"):
        (tmp_path / name).unlink()
    convert(ConvertOptions(path, str(tmp_path / "bundle")))
    assert sorted(os.listdir(str(tmp_path / "bundle" / "assets"))) == ["names.txt", "words.txt"]
    feeds = {"word": np.array([b"red", b"green", b"?"], object)}
    found = score(str(tmp_path / "bundle"), feeds, batch_rows=3)
    assert found["number"].tolist() == [7, -1, -1]
    assert found["weight"].tolist() == [1.0, 2.0, 3.0]
    assert found["name"].tolist() == [b"rot", b"gruen", b"blau"]


EAGER = """
import sys
import tensorflow as tf
tf.compat.v1.enable_v2_behavior()

class Model(tf.Module):
    def __init__(self, words):
        super().__init__()
        self.weights = tf.Variable([1.0, 2.0, 3.0])
        line = tf.lookup.TextFileIndex
        self.ids = tf.lookup.StaticHashTable(
            tf.lookup.TextFileInitializer(
                words, tf.string, line.WHOLE_LINE, tf.int64, line.LINE_NUMBER), 0)
        self.sizes = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(["red"], [7]), -1)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def predict(self, word):
        return {"weight": tf.gather(self.weights, self.ids.lookup(word)),
                "size": self.sizes.lookup(word)}

model = Model(sys.argv[1])
tf.saved_model.save(model, sys.argv[2], signatures=model.predict)
"""


def test_tables_of_a_module_that_was_saved_in_eager_mode(tmp_path):
    (tmp_path / "words.txt").write_text("red\ngreen\nblue\n")
    arguments = [str(tmp_path / "words.txt"), str(tmp_path / "model")]
    subprocess.run([sys.executable, "-c", EAGER, *arguments], check=True, stderr=subprocess.PIPE)
    (tmp_path / "words.txt").unlink()
    convert(ConvertOptions(str(tmp_path / "model"), str(tmp_path / "bundle")))
    manifest = Bundle.open(str(tmp_path / "bundle")).manifest
    assert [one["source"] for one in manifest["variables"].values()] == [
        "weights/.ATTRIBUTES/VARIABLE_VALUE"
    ]
    feeds = {"word": np.array([b"red", b"blue", b"?"], object)}
    found = score(str(tmp_path / "bundle"), feeds, batch_rows=3)
    assert found["weight"].tolist() == [1.0, 3.0, 1.0]
    assert found["size"].tolist() == [7, -1, -1]


def test_a_table_that_nothing_fills_is_refused(tmp_path):
    def build():
        word = tf.placeholder(tf.int64, [None], name="word")
        w = tf.get_variable("w", [])
        return {"word": word}, {"y": words({0: "no"}).lookup(word), "w": tf.fill([1], w)}

    path = save(tmp_path / "model", build)
    name = os.path.join(path, "saved_model.pb")
    model = SavedModel()
    with open(name, "rb") as file:
        model.ParseFromString(file.read())
    for node in model.meta_graphs[0].graph_def.node:
        if node.op.startswith("LookupTableImport"):
            node.CopyFrom(tf.NodeDef(name=node.name, op="NoOp"))
    with open(name, "wb") as file:
        file.write(model.SerializeToString())
    with pytest.raises(InputError, match="nothing in the graph fills 1 lookup table"):
        convert(ConvertOptions(path, str(tmp_path / "bundle")))
