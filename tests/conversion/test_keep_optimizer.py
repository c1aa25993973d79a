"""--keep-optimizer: a checkpoint from which an Estimator goes on training without a TPU."""

from __future__ import annotations

import os

import numpy as np
import pytest

from batchinfer.errors import BundleError, InputError, MappingError, OutputConflictError
from batchinfer.tf1 import tf
from conversion.convert import convert
from conversion.options import ConvertOptions
from conversion.weights import variable_copy
from conversion.weights.names import Drop, Rename, Rules, Transform
from conversion.weights.steps import Reshape
from conversion.weights.training_checkpoint import plan_training

X = np.random.RandomState(3).rand(8, 3).astype(np.float32)
Y = X.sum(1, keepdims=True)
TENSORS = {"inputs": {"x": "x:0"}, "outputs": {"y": "net/y:0"}}
RENAME = "rename: [{from: 'net/(.*)', to: 'gpu_net/\\1'}]"


def predict(x):
    """y = (x @ table) @ w + b, the table in two parts."""
    cut = tf.fixed_size_partitioner(2)
    table = tf.get_variable("table", [3, 4], partitioner=cut)
    w = tf.get_variable("w", [4, 1])
    b = tf.get_variable("b", [1], initializer=tf.zeros_initializer())
    hidden = tf.matmul(x, tf.convert_to_tensor(table))
    return tf.add(tf.matmul(hidden, w), b, name="y")


def train(scope, step):
    """The loss and the op of one training step, all variables in `scope`."""
    with tf.variable_scope(scope, use_resource=True):
        tf.set_random_seed(7)
        loss = tf.losses.mean_squared_error(Y, predict(tf.constant(X)))
        optimizer = tf.tpu.CrossShardOptimizer(tf.train.AdamOptimizer(0.1))._opt
        average = tf.train.ExponentialMovingAverage(0.9)
        with tf.control_dependencies([optimizer.minimize(loss, global_step=step)]):
            return loss, average.apply(tf.trainable_variables())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A PREDICT .meta and the checkpoint of 3 steps of training, in one folder."""
    folder = tmp_path_factory.mktemp("trained")
    with tf.Graph().as_default(), tf.Session() as session:
        _, update = train("net", tf.train.get_or_create_global_step())
        session.run(tf.global_variables_initializer())
        for _ in range(3):
            session.run(update)
        saver = tf.train.Saver()
        path = saver.save(session, str(folder / "model.ckpt"), 3, write_meta_graph=False)
    with tf.Graph().as_default():
        with tf.variable_scope("net", use_resource=True):
            predict(tf.placeholder(tf.float32, [None, 3], name="x"))
        graph = tf.get_default_graph()
        names = [op.name for op in graph.get_operations() if op.type == "Placeholder"]
        tf.train.Saver()
        tf.train.export_meta_graph(path + ".meta")
    return path + ".meta", {"inputs": {"x": names[0] + ":0"}, "outputs": {"y": "net/y:0"}}


def options(trained, out, tmp_path, **changes):
    (tmp_path / "rules.yaml").write_text(RENAME)
    return ConvertOptions(
        source=trained[0], out=str(out), keep_optimizer=True, weights="raw",
        **{"rules": str(tmp_path / "rules.yaml"), **trained[1], **changes},
    )  # fmt: skip


def values(prefix):
    """Every entry as a Saver's reader gives it; the parts of slots apart."""
    reader = tf.train.load_checkpoint(prefix)
    shapes = reader.get_variable_to_shape_map()
    whole = [name for name in shapes if "/table/" not in name]
    found = {name: reader.get_tensor(name) for name in whole}
    with tf.Graph().as_default(), tf.Session() as session:
        for name in set(shapes) - set(whole):
            part = "3 4 0,2:0,4" if "_0/" in name else "3 4 2,1:0,4"
            read = tf.raw_ops.RestoreV2(
                prefix=prefix,
                tensor_names=[name],
                shape_and_slices=[part],
                dtypes=[tf.float32],
            )
            found[name] = session.run(read)[0]
    return found


def go_on_in_a_session(checkpoint):
    """One more step under the old names: the loss before it, and all values after it."""
    with tf.Graph().as_default(), tf.Session() as session:
        loss, update = train("net", tf.train.get_or_create_global_step())
        saver = tf.train.Saver()
        saver.restore(session, checkpoint)
        before = session.run(loss)
        session.run(update)
        return before, values(saver.save(session, checkpoint + "-on", write_meta_graph=False))


def go_on_with_an_estimator(folder):
    """One more step by an Estimator of the model_fn in another scope."""
    losses = []

    class Keep(tf.train.SessionRunHook):
        def before_run(self, context):
            return tf.train.SessionRunArgs(context.session.graph.get_collection("losses")[0])

        def after_run(self, context, run_values):
            losses.append(run_values.results)

    def model_fn(features, labels, mode):
        loss, update = train("gpu_net", tf.train.get_global_step())
        return tf.estimator.EstimatorSpec(mode, loss=loss, train_op=tf.group(update))

    def data():
        return tf.data.Dataset.from_tensors(({"x": X}, Y)).repeat()

    config = tf.estimator.RunConfig(tf_random_seed=1)
    estimator = tf.estimator.Estimator(model_fn, model_dir=folder, config=config)
    estimator.train(data, steps=1, hooks=[Keep()])
    return losses[0], values(tf.train.latest_checkpoint(folder))


@pytest.mark.parametrize("group_bytes", [1 << 20, 1])
def test_an_estimator_goes_on_as_if_nothing_had_happened(
    trained, tmp_path, monkeypatch, group_bytes
):
    monkeypatch.setattr(variable_copy, "GROUP_BYTES", group_bytes)
    result = convert(options(trained, tmp_path / "b", tmp_path))
    folder = str(tmp_path / "b-training")
    assert result["training"] == {
        "checkpoint": os.path.join(folder, "model.ckpt-3"),
        "step": 3,
        "variables": 18,
        "slots": 8,
    }
    expected_loss, expected = go_on_in_a_session(trained[0][: -len(".meta")])
    loss, found = go_on_with_an_estimator(folder)
    assert loss == expected_loss
    assert found["global_step"] == expected["global_step"] == 4
    assert sorted(found) == sorted(map(renamed, expected))
    for name, value in expected.items():
        np.testing.assert_allclose(found[renamed(name)], value, 1e-6, 1e-7)


def renamed(name):
    """What TF 1.15 calls it inside of gpu_net.

    It cuts the name of a part's slot by a length that leaves the scope out: `net/table/t_0/Adam`.
    """
    return name.replace("/t_", "//part_").replace("net/", "gpu_net/")


def test_nothing_in_it_names_the_machine_that_trained(trained, tmp_path):
    convert(options(trained, tmp_path / "b", tmp_path))
    state = (tmp_path / "b-training" / "checkpoint").read_text()
    assert state.splitlines() == [
        'model_checkpoint_path: "model.ckpt-3"',
        'all_model_checkpoint_paths: "model.ckpt-3"',
    ]
    os.rename(str(tmp_path / "b-training"), str(tmp_path / "moved"))
    assert tf.train.latest_checkpoint(str(tmp_path / "moved")) == str(
        tmp_path / "moved" / "model.ckpt-3"
    )


def test_a_folder_that_is_there_is_refused_before_any_work(trained, tmp_path):
    (tmp_path / "b-training").mkdir()
    with pytest.raises(OutputConflictError, match=r"training checkpoint folder .*b-training"):
        convert(options(trained, tmp_path / "b", tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ["b-training", "rules.yaml"]


def test_a_conversion_that_fails_leaves_neither_of_the_two(trained, tmp_path, monkeypatch):
    def fails(*_):
        raise BundleError("disk full")

    monkeypatch.setattr("conversion.convert.write_bundle", fails)
    with pytest.raises(BundleError, match="disk full"):
        convert(options(trained, tmp_path / "deep" / "b", tmp_path))
    assert sorted(os.listdir(str(tmp_path))) == ["rules.yaml"]


def saved(folder, **shapes):
    """A checkpoint of zeros; names with slashes are spelled with dots."""
    with tf.Graph().as_default(), tf.Session() as session:
        for name, shape in shapes.items():
            dtype = (
                tf.int64 if name == "global_step" else tf.bfloat16 if name == "h" else tf.float32
            )
            tf.get_variable(name.replace(".", "/"), shape, dtype, tf.zeros_initializer())
        session.run(tf.global_variables_initializer())
        return tf.train.Saver().save(session, str(folder / "m"), write_meta_graph=False)


def test_a_checkpoint_without_global_step_is_refused(tmp_path):
    with pytest.raises(InputError, match="has no global_step among its 1 variables"):
        plan_training(saved(tmp_path, w=[2]), Rules())


def test_the_variables_of_an_export_are_no_training_checkpoint(tmp_path):
    prefix = saved(tmp_path, w=[2], global_step=[])
    folder = tmp_path / "variables"
    folder.mkdir()
    for end in (".index", ".data-00000-of-00001"):
        os.rename(prefix + end, str(folder / ("variables" + end)))
    with pytest.raises(InputError, match=r"has no slots of an optimizer .* with --checkpoint"):
        plan_training(str(folder / "variables"), Rules())


def test_plain_gradient_descent_has_no_slots_and_goes_on(tmp_path):
    assert plan_training(saved(tmp_path, w=[2], global_step=[]), Rules()).num_slots == 0


def names(plan):
    return {one.pieces[0].spec.name: one.target for one in plan.entries}


def test_slots_follow_their_variable_however_the_rename_is_spelled(tmp_path):
    entries = {"m.w": [2], "m.w.Adam": [2], "m.m.w.Adam_1": [2], "m.Adam.m.w.m": [2]}
    prefix = saved(tmp_path, global_step=[], **entries)
    by_name = names(plan_training(prefix, Rules(renames=(Rename("m/w", "g/w"),))))
    assert by_name == {
        "global_step": "global_step",
        "m/w": "g/w",
        "m/w/Adam": "g/w/Adam",
        "m/m/w/Adam_1": "g/g/w/Adam_1",
        "m/Adam/m/w/m": "g/Adam/g/w/m",
    }
    assert names(plan_training(prefix, Rules(renames=(Rename("m/(.*)", r"g/\1"),)))) == by_name


def test_dtypes_stay_and_drops_of_the_bundle_do_not_count(tmp_path):
    prefix = saved(tmp_path, h=[2], debug=[1], global_step=[])
    plan = plan_training(prefix, Rules(drops=(Drop("debug", "not the model's"),)))
    dtypes = {one.target: one.variable.spec.dtype for one in plan.entries}
    assert dtypes == {"h": "bfloat16", "debug": "float32", "global_step": "int64"}


def test_two_variables_under_one_name_are_refused(tmp_path):
    prefix = saved(tmp_path, a=[2], b=[2], global_step=[])
    with pytest.raises(MappingError, match="c  from a, b"):
        plan_training(prefix, Rules(renames=(Rename("[ab]", "c"),)))


def test_transforms_are_refused(tmp_path):
    rules = Rules(transforms=(Transform("w", ("w",), (Reshape((1, 2)),), "why"),))
    with pytest.raises(InputError, match="would have to be made of the slots as well"):
        plan_training(saved(tmp_path, w=[2], global_step=[]), rules)
