"""Keras models of TF 1.15 and the files of their weights: the bundle predicts as model.predict."""

from __future__ import annotations

import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from batchinfer.bundle import Bundle
from batchinfer.errors import InputError, MappingError, UnsupportedOpsError
from batchinfer.ragged import Ragged
from batchinfer.scorer import Scorer
from batchinfer.tf1 import tf
from conversion.code.keras_shim import keras_on_one_device
from conversion.convert import convert
from conversion.options import ConvertOptions, ModelCode
from conversion.proof.tolerance import Tolerance
from tests.conversion.models import keras_model

NAME = keras_model.__name__


@pytest.fixture(scope="module")
def prepare(tmp_path_factory):
    """model name -> its files, its input rows and what model.predict gives for them."""
    made = {}

    def prepared(name, forms=keras_model.FORMS):
        if name not in made:
            made[name] = _prepared(keras_model.MODELS[name], str(tmp_path_factory.mktemp(name)))
        found = made[name]
        with found.graph.as_default(), found.session.as_default():
            for form in forms:
                if form not in found.paths:
                    found.paths[form] = keras_model.save(found.model, form, found.folder)
        return found

    yield prepared
    for one in made.values():
        one.session.close()


def _prepared(make, folder):
    graph = tf.Graph()
    with graph.as_default(), keras_on_one_device():
        session = tf.Session()
        with session.as_default():
            model = make()
            keras_model.randomize(model)
            rows = keras_model.arrays(model, 9)
            found = model.predict(rows, batch_size=9)
    outputs = dict(zip(model.output_names, found if isinstance(found, list) else [found]))
    reference = os.path.join(folder, "reference.npz")
    arrays = {f"inputs/{key}": value for key, value in rows.items()}
    np.savez(reference, **arrays, **{f"outputs/{key}": value for key, value in outputs.items()})
    return SimpleNamespace(
        graph=graph, session=session, model=model, folder=folder, reference=reference, paths={},
        outputs=outputs,
    )  # fmt: skip


def options(path, out, make=None, **changes):
    code = ModelCode(keras=f"{NAME}:{make}") if make else None
    return ConvertOptions(path, str(out), code=code, **changes)


WITHOUT_CODE = ("model_h5", "saved_model", "exported")
CASES = [
    *(("under_tpu_strategy", form, 1e-6) for form in keras_model.FORMS),
    *(("for_contrib_tpu", form, 1e-6) for form in ("weights_h5", "checkpoint")),
    *(("recurrent", form, 1e-6) for form in ("weights_tf", "exported")),
    *(("recurrent_of_2_0", form, 1e-6) for form in ("weights_h5", "model_h5", "saved_model")),
    *(("sequential", form, 1e-6) for form in ("model_h5", "weights_tf", "saved_model")),
    *(("subclassed", form, 1e-6) for form in ("weights_h5", "weights_tf", "saved_model")),
    *(("bfloat16", form, 2e-2) for form in ("weights_h5", "checkpoint", "exported")),
]


@pytest.mark.parametrize(
    "name, form, atol", CASES, ids=[f"{name}-{form}" for name, form, _ in CASES]
)
def test_a_bundle_predicts_as_model_predict(prepare, tmp_path, name, form, atol):
    model = prepare(name, [form])
    scale = max(1.0, *(float(np.abs(one).max()) for one in model.outputs.values()))
    assert all(np.std(one) > 0.01 for one in model.outputs.values())
    result = convert(
        options(
            model.paths[form],
            tmp_path / "bundle",
            None if form in WITHOUT_CODE else name,
            reference=model.reference,
            tolerance=Tolerance(atol * scale, 0.0),
        )
    )
    assert result["batch"]["kind"] == "dynamic"
    assert result["parity"]["passed"]
    assert sorted(result["parity"]["outputs"]) == sorted(model.outputs)


def test_why_entries_of_an_object_based_checkpoint_are_left_out(tmp_path):
    """A compiled model after a step of training, in a checkpoint with its optimizer."""
    graph = tf.Graph()
    with graph.as_default(), tf.Session().as_default() as session:
        model = keras_model.sequential()
        model.compile(tf.keras.optimizers.Adam(), "mse", metrics=["mae"])
        model.train_on_batch(np.ones((4, 4), np.float32), np.ones((4, 3), np.float32))
        holder = tf.train.Checkpoint(net=model, opt=model.optimizer)
        path = holder.save(str(tmp_path / "ckpt"), session=session)
        convert(options(path, tmp_path / "bundle", "sequential", optimize=False))
    dropped = Bundle.open(str(tmp_path / "bundle")).manifest["dropped"]
    first = "net/layer_with_weights-0/kernel/.OPTIMIZER_SLOT/opt"
    assert dropped[f"{first}/m/.ATTRIBUTES/VARIABLE_VALUE"] == "optimizer slot (m)"
    assert dropped[f"{first}/v/.ATTRIBUTES/VARIABLE_VALUE"] == "optimizer slot (v)"
    assert dropped["opt/iter/.ATTRIBUTES/VARIABLE_VALUE"] == "optimizer state"
    assert dropped["save_counter/.ATTRIBUTES/VARIABLE_VALUE"] == "bookkeeping of the saver"
    assert dropped["_CHECKPOINTABLE_OBJECT_GRAPH"] == "bookkeeping of the saver"
    # 8 trainable variables with two slots each, 5 numbers of Adam, two of the saver.
    assert len(dropped) == 8 * 2 + 5 + 2


def test_metrics_in_a_saved_model_are_left_out(prepare, tmp_path):
    model = prepare("under_tpu_strategy", ["saved_model"])
    convert(options(model.paths["saved_model"], tmp_path / "bundle", optimize=False))
    dropped = Bundle.open(str(tmp_path / "bundle")).manifest["dropped"]
    assert set(dropped.values()) == {"bookkeeping of the saver", "Keras metric"}


def test_numbers_that_keras_appends_to_names_are_no_difference(prepare, tmp_path):
    """The same code ran twice in one process before it was saved: dense_3 in place of dense."""
    model = prepare("sequential", ["weights_h5"])
    with tf.Graph().as_default(), tf.Session().as_default():
        keras_model.sequential()
        second = keras_model.sequential()
        second.load_weights(model.paths["weights_h5"])
        second.save_weights(str(tmp_path / "second.h5"))
        assert second.layers[0].name == "dense_3"
    tolerance = Tolerance(1e-6, 0.0)
    result = convert(
        options(str(tmp_path / "second.h5"), tmp_path / "bundle", "sequential",
                reference=model.reference, tolerance=tolerance)
    )  # fmt: skip
    assert result["parity"]["passed"]


def test_the_weights_of_another_model_are_refused_with_every_difference(prepare, tmp_path):
    model = prepare("sequential", ["weights_h5"])
    with pytest.raises(MappingError) as error:
        convert(options(model.paths["weights_h5"], tmp_path / "bundle", "subclassed"))
    assert str(error.value).splitlines()[1:] == [
        "  3 layers with weights in the file, 4 in the model",
        "  + dense", "  + sequential", "  + dense_2",
        "  - dense", "  - dense_1", "  - batch_normalization", "  - dense_2",
        "Expected the layers under the names and in the order of the model that was saved.",
    ]  # fmt: skip


def twins(first, second, units=3):
    """Two layers of the same shape, which only their names tell apart."""
    layers = tf.keras.layers
    return tf.keras.Sequential(
        [layers.Dense(units, name=first, input_shape=(3,)), layers.Dense(3, name=second)]
    )


@pytest.mark.parametrize("changed, words", [
    ({"first": "b", "second": "a"}, "the same layers in another order"),
    ({"second": "last"}, "+ layer b  - layer last"),
    ({"units": 4}, "+ a/kernel:0 [3, 3]  - a/kernel:0 [3, 4]"),
])  # fmt: skip
def test_layers_that_do_not_agree_are_refused(tmp_path, monkeypatch, changed, words):
    with tf.Graph().as_default(), tf.Session().as_default():
        twins("a", "b").save_weights(str(tmp_path / "w.h5"))
    names = {"first": "a", "second": "b", **changed}
    monkeypatch.setattr(keras_model, "twins", lambda: twins(**names), raising=False)
    with pytest.raises(MappingError) as error:
        convert(options(str(tmp_path / "w.h5"), tmp_path / "bundle", "twins"))
    assert words in str(error.value)


def test_two_models_alike_in_one_checkpoint_are_not_guessed_between(tmp_path, monkeypatch):
    with tf.Graph().as_default(), tf.Session().as_default() as session:
        student, teacher = twins("a", "b"), twins("a", "b")
        tf.keras.backend.get_session()
        teacher.set_weights([value + 1.0 for value in teacher.get_weights()])
        wanted = teacher.get_weights()
        holder = tf.train.Checkpoint(student=student, teacher=teacher)
        path = holder.save(str(tmp_path / "ckpt"), session=session)
    monkeypatch.setattr(keras_model, "one", lambda: twins("a", "b"), raising=False)
    with pytest.raises(InputError, match=r"2 objects .*\n  student\n  teacher\n"):
        convert(options(path, tmp_path / "bundle", "one"))
    monkeypatch.setattr(
        keras_model, "held", lambda: tf.train.Checkpoint(teacher=twins("a", "b")), raising=False
    )
    convert(options(path, tmp_path / "bundle", "held"))
    bundle = Bundle.open(str(tmp_path / "bundle"))
    reader = tf.train.load_checkpoint(os.path.join(bundle.path, "variables", "variables"))
    np.testing.assert_array_equal(reader.get_tensor("a/kernel"), wanted[0])
    left_out = bundle.manifest["dropped"][
        "student/layer_with_weights-0/bias/.ATTRIBUTES/VARIABLE_VALUE"
    ]
    assert left_out == "belongs to another object of the checkpoint than the model"


def test_a_layer_that_the_model_has_not_is_refused(tmp_path, monkeypatch):
    with tf.Graph().as_default(), tf.Session().as_default():
        twins("a", "b").save_weights(str(tmp_path / "w"), save_format="tf")
    one = lambda: tf.keras.Sequential([tf.keras.layers.Dense(3, name="a", input_shape=(3,))])  # noqa: E731
    monkeypatch.setattr(keras_model, "one", one, raising=False)
    with pytest.raises(MappingError) as error:
        convert(options(str(tmp_path / "w"), tmp_path / "bundle", "one"))
    assert "no rule for    + layer_with_weights-1/kernel/.ATTRIBUTES/VARIABLE_VALUE" in str(
        error.value
    )


def test_an_object_based_checkpoint_serves_a_graph_by_the_names_of_its_variables(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 2], name="x")
        kernel = tf.get_variable("net/kernel", [2, 3], use_resource=True)
        tf.matmul(x, kernel, name="y")
        session.run(tf.global_variables_initializer())
        tf.train.export_meta_graph(str(tmp_path / "graph.meta"))
        holder = tf.train.Checkpoint(weights=kernel)
        path = holder.save(str(tmp_path / "ckpt"), session=session)
    convert(
        ConvertOptions(
            str(tmp_path / "graph.meta"), str(tmp_path / "bundle"), checkpoint=path,
            inputs={"x": "x"}, outputs={"y": "y"},
        )
    )  # fmt: skip
    variables = Bundle.open(str(tmp_path / "bundle")).manifest["variables"]
    assert variables["net/kernel"]["source"] == "weights/.ATTRIBUTES/VARIABLE_VALUE"


def test_the_same_file_gives_the_same_bundle_and_leaves_nothing_behind(
    prepare, tmp_path, monkeypatch
):
    model = prepare("sequential", ["model_h5"])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    digests = []
    for name in ("one", "two"):
        result = convert(options(model.paths["model_h5"], tmp_path / name))
        source = Bundle.open(str(tmp_path / name)).manifest["source"]
        digests.append((result["digest"], source["digest"], source["kind"]))
    assert digests[0] == digests[1]
    assert digests[0][2] == "keras"
    assert os.listdir(str(tmp_path / "scratch")) == []


REFUSED = [
    ("weights without code", "weights_h5", None, "name the function that builds the model"),
    ("a function that takes more", "weights_h5", "arrays", "takes (model, num_rows, seed=3)"),
    ("a function that fails", "weights_h5", "failing", "no TPU in this zone"),
    ("a model that was not built", "weights_h5", "Subclassed", "the model has no inputs yet"),
    ("no such function", "weights_h5", "nothing", "has no nothing"),
]


@pytest.mark.parametrize("form, make, words", [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_used_is_refused(prepare, tmp_path, form, make, words):
    model = prepare("sequential", [form])
    with pytest.raises(InputError) as error:
        convert(options(model.paths[form], tmp_path / "bundle", make))
    assert words in str(error.value)


def test_params_are_the_arguments_of_the_function(prepare, tmp_path, monkeypatch):
    with tf.Graph().as_default(), tf.Session().as_default():
        twins("a", "b", units=5).save_weights(str(tmp_path / "w.h5"))
    monkeypatch.setattr(keras_model, "twins", twins, raising=False)
    (tmp_path / "params.yaml").write_text("first: a\nsecond: b\nunits: 5\n")
    code = ModelCode(keras=f"{NAME}:twins", params=str(tmp_path / "params.yaml"))
    convert(ConvertOptions(str(tmp_path / "w.h5"), str(tmp_path / "bundle"), code=code))
    variables = Bundle.open(str(tmp_path / "bundle")).manifest["variables"]
    assert variables["a/kernel"]["shape"] == [3, 5]


def test_a_file_of_h5py_3_whose_attributes_are_str_is_read(prepare, tmp_path):
    h5py = pytest.importorskip("h5py")
    model = prepare("sequential", ["model_h5"])
    path = str(tmp_path / "str.h5")
    shutil.copyfile(model.paths["model_h5"], path)
    with h5py.File(path, "r+") as file:
        for name in ("model_config",):
            file.attrs[name] = file.attrs[name].decode()
        weights = file["model_weights"]
        names = [one.decode() for one in weights.attrs["layer_names"]]
        weights.attrs.create("layer_names", names, dtype=h5py.special_dtype(vlen=str))
    tolerance = Tolerance(1e-6, 0.0)
    result = convert(
        options(path, tmp_path / "bundle", reference=model.reference, tolerance=tolerance)
    )
    assert result["parity"]["passed"]


def test_user_code_finds_tensorflow_as_it_was_afterwards():
    before = tf.keras.backend.clear_session.__code__
    with keras_on_one_device():
        assert tf.distribute.experimental.TPUStrategy(object()).num_replicas_in_sync == 1
        assert tf.keras.backend.clear_session.__code__ is not before
    assert tf.keras.backend.clear_session.__code__ is before


def test_a_sparse_input_keeps_the_width_of_its_layer(tmp_path, monkeypatch):
    def sparse():
        x = tf.keras.Input((4,), sparse=True, name="x")
        kernel = np.arange(8, dtype=np.float32).reshape(4, 2)
        y = tf.keras.layers.Lambda(lambda x: tf.sparse.sparse_dense_matmul(x, kernel))(x)
        return tf.keras.Model(x, tf.keras.layers.Dense(2, name="y", use_bias=False)(y))

    monkeypatch.setattr(keras_model, "sparse", sparse, raising=False)
    with tf.Graph().as_default(), tf.Session().as_default():
        model = sparse()
        model.set_weights([np.eye(2)])
        model.save_weights(str(tmp_path / "w.h5"))
    convert(options(str(tmp_path / "w.h5"), tmp_path / "bundle", "sparse"))
    bundle = Bundle.open(str(tmp_path / "bundle"))
    assert str(bundle.signature.inputs[0]) == "x: ragged float32[?, 4]"
    scorer = Scorer.restore(bundle, 3)
    rows = Ragged.of(np.array([1.0, 1.0, 2.0], np.float32), np.array([2, 0, 1]))
    assert scorer.score({"x": rows})["y"].tolist() == [[2.0, 4.0], [0.0, 0.0], [0.0, 2.0]]
    scorer.close()


def test_a_model_of_dicts_has_their_keys_as_inputs_and_outputs(tmp_path):
    rows = {"ids": np.array([[1, 2, 2], [0, 5, 1]], np.int32), "x": np.eye(4, dtype=np.float32)[:2]}
    with tf.Graph().as_default(), tf.Session().as_default() as session:
        model = keras_model.with_dicts()
        keras_model.randomize(model)
        outputs = session.run(model({name: tf.constant(one) for name, one in rows.items()}))
        model.save_weights(str(tmp_path / "w"), save_format="tf")
    arrays = {f"inputs/{name}": one for name, one in rows.items()}
    arrays.update({f"outputs/{name}": one for name, one in outputs.items()})
    np.savez(str(tmp_path / "reference.npz"), **arrays)
    result = convert(
        options(str(tmp_path / "w"), tmp_path / "bundle", "with_dicts",
                reference=str(tmp_path / "reference.npz"), tolerance=Tolerance(1e-6, 0.0))
    )  # fmt: skip
    assert result["inputs"] == ["ids: int32[?, 3]", "x: float32[?, 4]"]
    assert sorted(result["parity"]["outputs"]) == ["bag", "scores"]


def test_dropout_that_the_model_keeps_on_while_it_predicts_is_refused(tmp_path, monkeypatch):
    def sampling():
        x = tf.keras.Input((4,), name="x")
        return tf.keras.Model(
            x, tf.keras.layers.Dropout(0.5)(tf.keras.layers.Dense(2)(x), training=True)
        )

    monkeypatch.setattr(keras_model, "sampling", sampling, raising=False)
    with tf.Graph().as_default(), tf.Session().as_default():
        sampling().save_weights(str(tmp_path / "w.h5"))
    with pytest.raises(UnsupportedOpsError, match="gives other numbers in each run"):
        convert(options(str(tmp_path / "w.h5"), tmp_path / "bundle", "sampling"))


def test_a_features_file_builds_a_subclassed_model_that_was_not_called(prepare, tmp_path):
    model = prepare("subclassed", ["weights_h5"])
    (tmp_path / "features.yaml").write_text("features: float32[?, 4]\n")
    code = ModelCode(keras=f"{NAME}:Subclassed", features=str(tmp_path / "features.yaml"))
    result = convert(ConvertOptions(model.paths["weights_h5"], str(tmp_path / "bundle"), code=code))
    assert result["inputs"] == ["features: float32[?, 4]"]
    scorer = Scorer.restore(Bundle.open(str(tmp_path / "bundle")), 9)
    with np.load(model.reference) as arrays:
        found = scorer.score({"features": arrays["inputs/input_1"]})
        np.testing.assert_allclose(found["output_1"], arrays["outputs/output_1"], 0, 1e-6)
    scorer.close()
    code = ModelCode(keras=f"{NAME}:subclassed", features=str(tmp_path / "features.yaml"))
    with pytest.raises(InputError, match="the model has inputs of its own, input_1"):
        convert(ConvertOptions(model.paths["weights_h5"], str(tmp_path / "other"), code=code))
