"""The TPU API answered for one device: what each function gives, and that nothing stays changed."""

from __future__ import annotations

import importlib
import inspect
import json
import os

import pytest
import tensorflow as tf

from batchinfer.errors import InputError
from conversion.code import warm_start
from conversion.code.answered import answered
from conversion.code.params import Params
from conversion.code.tpu_api import ANSWERS, one_device
from conversion.code.tpu_context import HostContext
from tests.conversion.code import hard_coded, runs

TPU_OPS = {"TPUReplicateMetadata", "TPUReplicatedInput", "CrossReplicaSum", "AllToAll"}


@pytest.fixture
def build():
    """A graph in which the TPU API is answered."""
    with tf.Graph().as_default() as graph, one_device():
        yield tf.constant([[1.0, 2.0], [3.0, 4.0]])
        assert TPU_OPS & {op.type for op in graph.get_operations()} == set()


def value(tensors):
    with tf.Session() as session:
        return tf.nest.map_structure(lambda array: array.tolist(), session.run(tensors))


def state(named):
    module, _, path = named.partition(":")
    owner, _, name = path.rpartition(".")
    holder = importlib.import_module(module)
    if owner:
        return getattr(holder, owner).__dict__.get(name)
    function = inspect.unwrap(getattr(holder, name))
    return function, function.__code__, function.__defaults__, function.__kwdefaults__


def test_nothing_stays_changed():
    answers = {**ANSWERS, **warm_start.answers("model.ckpt")}
    with one_device():  # imports what is imported once
        pass
    before = {named: state(named) for named in answers}
    with pytest.raises(KeyError), one_device(1), answered(warm_start.answers("model.ckpt")):
        changed = [named for named in answers if state(named) != before[named]]
        assert changed == list(answers)
        raise KeyError("in the user's code")
    assert {named: state(named) for named in answers} == before
    context = importlib.import_module("tensorflow.python.tpu.tpu_function").get_tpu_context()
    assert context.number_of_shards is None


def test_names_that_were_bound_before_are_answered(build):
    assert hard_coded.sum_of_all is tf.contrib.tpu.cross_replica_sum
    assert value(hard_coded.sum_of_all(build)) == [[1.0, 2.0], [3.0, 4.0]]
    (doubled,) = hard_coded.compiled(lambda x: 2 * x, [build])
    assert value(doubled) == [[2.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize(
    "outputs, expected",
    [
        (lambda x: x, [[1.0, 2.0]]),  # one value becomes a list
        (lambda x: (x, 3.0), [[1.0, 2.0], 3.0]),
        (lambda x: [x, tf.no_op()], [[1.0, 2.0]]),  # operations are run, not returned
        (lambda x: {"a": x, "b": [x, 3.0]}, {"a": [1.0, 2.0], "b": [[1.0, 2.0], 3.0]}),
    ],
)
def test_rewrite_gives_what_it_gives_on_a_tpu(build, outputs, expected):
    for rewrite in (tf.tpu.rewrite, tf.xla.experimental.compile, tf.compat.v1.tpu.rewrite):
        assert value(rewrite(outputs, [build[0]])) == expected


def test_a_computation_without_outputs_is_an_operation(build):
    assert isinstance(tf.tpu.rewrite(lambda: None), tf.Operation)
    assert isinstance(tf.tpu.rewrite(lambda: tf.no_op()), tf.Operation)


def test_operations_of_a_computation_run_before_its_tensors(build):
    counter = tf.get_variable("counter", initializer=0, use_resource=True)
    (out,) = tf.tpu.rewrite(lambda: [tf.constant(1), counter.assign_add(5).op])
    with tf.Session() as session:
        session.run(counter.initializer)
        assert (session.run(out), session.run(counter)) == (1, 5)


def test_shards_and_replicas(build):
    assert value(tf.tpu.shard(lambda x: x + 1, [build], num_shards=2)) == [[[2.0, 3.0], [4.0, 5.0]]]
    assert value(tf.tpu.batch_parallel(lambda x: x + 1, [build], 2)) == [[[2.0, 3.0], [4.0, 5.0]]]
    replicas = tf.tpu.replicate(lambda x: x + 1, [[build[0]], [build[1]]])
    assert value(replicas) == [[[2.0, 3.0]], [[4.0, 5.0]]]
    with pytest.raises(InputError, match="the outputs of one of 2 shards"):
        tf.tpu.shard(lambda x: x, [build], 2, outputs_from_all_shards=False)
    module = importlib.import_module("tensorflow.python.tpu.tpu")
    assert value(module.split_compile_and_shard(lambda x: x, [build[0]])[1]) == [[1.0, 2.0]]
    assert value(module.split_compile_and_replicate(lambda x: x, [[build[0]]])[1]) == [[[1.0, 2.0]]]


def test_an_infeed_queue_is_refused(build):
    with pytest.raises(InputError, match="InfeedQueue; expected them as arguments"):
        tf.tpu.rewrite(lambda: 1, infeed_queue=object())


def test_values_of_other_replicas_are_their_own_where_there_is_one(build):
    module = importlib.import_module("tensorflow.contrib.tpu.python.ops.tpu_ops")
    assert value(module.cross_replica_sum(build[0], [[0]])) == [1.0, 2.0]
    assert value(module.all_to_all(build[0], 0, 0, 1)) == [1.0, 2.0]
    assert value(module.collective_permute(build[0], [[0, 0]])) == [1.0, 2.0]
    function = importlib.import_module("tensorflow.python.tpu.tpu_function")
    with function.tpu_shard_context(8), pytest.raises(InputError, match="values from 8 shards"):
        module.cross_replica_sum(build)


def test_groups_of_several_replicas_stay_for_surgery_to_judge():
    with tf.Graph().as_default(), one_device():
        summed = tf.contrib.tpu.cross_replica_sum(tf.zeros([2]), [[0, 1]])
    assert summed.op.type == "CrossReplicaSum"


def test_what_surrounds_a_model_on_a_tpu(build):
    tpu = tf.contrib.tpu
    with tf.device(tpu.core(0)):
        assert tf.identity(build).device == ""
    assert value(tpu.outside_compilation(lambda x, y: x + y, build[0], y=1.0)) == [2.0, 3.0]
    assert value(tpu.repeat(3, lambda x: x + 1, [0.0])) == [3.0]
    assert value(tpu.while_loop(lambda x: x < 5.0, lambda x: x * 2, [1.0])) == 8.0
    assert tpu.initialize_system().dtype == tf.string
    assert isinstance(tpu.shutdown_system(), tf.Operation)
    resolver = tf.contrib.cluster_resolver.TPUClusterResolver("a-tpu", zone="z", project="p")
    assert resolver.master() == resolver.get_master() == ""
    config = tpu.RunConfig(
        cluster=resolver,
        tpu_config=tpu.TPUConfig(
            iterations_per_loop=100,
            num_shards=8,
            per_host_input_for_training=tpu.InputPipelineConfig.PER_HOST_V2,
        ),
    )
    tpu.TPUEstimator(model_fn=hard_coded.model_fn, config=config, params={}, train_batch_size=8)
    strategy = tf.distribute.experimental.TPUStrategy(resolver)
    with strategy.scope():
        assert strategy.num_replicas_in_sync == 1


def test_a_cross_shard_optimizer_is_the_optimizer_in_it(build):
    weight = tf.get_variable("weight", [2], initializer=tf.ones_initializer())
    loss = tf.reduce_sum(weight * weight)
    optimizer = tf.contrib.tpu.CrossShardOptimizer(tf.train.GradientDescentOptimizer(0.25))
    step = optimizer.minimize(loss)
    with tf.Session() as session:
        session.run(tf.global_variables_initializer())
        session.run(step)
        assert session.run(weight).tolist() == [0.5, 0.5]


def test_a_model_fn_runs_where_it_is_put_on_a_tpu(build):
    module = importlib.import_module("tensorflow_estimator.python.estimator.tpu.tpu_estimator")

    def model_fn(features, mode):
        return tf.estimator.EstimatorSpec(mode, predictions={"y": features + 1})

    spec = module.model_fn_inference_on_tpu(model_fn, build[0], params={})
    assert value(spec.predictions) == {"y": [2.0, 3.0]}
    outputs = module.inference_on_tpu(lambda x: x + 1, [build[0]], 1, 8, 100)
    assert value(outputs) == [[2.0, 3.0]]
    assert value(module.call_computation(build[0], lambda x: [x])) == [[1.0, 2.0]]


GONE = ["gs://bucket/model.ckpt", "/gone/model.ckpt"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    def variable():
        tf.get_variable("a/b", [2, 3])

    return runs.save_random(str(tmp_path_factory.mktemp("c")), variable)


@pytest.mark.parametrize("path", GONE)
def test_names_of_a_checkpoint_that_is_gone_are_those_that_are_converted(checkpoint, path):
    with tf.Graph().as_default() as graph, one_device():
        with answered(warm_start.answers(checkpoint, ["gs://bucket/model.ckpt"])):
            framework = tf.contrib.framework
            for read in (tf.train.list_variables, framework.list_variables):
                assert read(path) == [("a/b", [2, 3]), ("global_step", [])]
            for read in (tf.train.load_checkpoint, tf.train.NewCheckpointReader):
                reader = read(path)
                assert reader.get_variable_to_shape_map()["a/b"] == [2, 3]
                assert reader.has_tensor("a/b") and not reader.has_tensor("b")
                with pytest.raises(InputError, match="value of a/b"):
                    reader.get_tensor("a/b")
            for read in (tf.train.load_variable, framework.load_variable):
                with pytest.raises(InputError, match="copy it here and name the copy"):
                    read(path, "a/b")
            variable = tf.get_variable("c", [2])
            tf.train.init_from_checkpoint(path, {"gone": variable})
            framework.init_from_checkpoint(path, {"gone": variable})
            tf.train.warm_start(path)
            framework.assign_from_checkpoint_fn(path, [variable])(None)
            assert framework.assign_from_checkpoint(path, [variable])[1] == {}
    assert not [op for op in graph.get_operations() if op.type == "RestoreV2"]


def test_files_in_buckets_are_not_asked_for(checkpoint):
    path = "gs://bucket/model.ckpt"
    with one_device(), answered(warm_start.answers(checkpoint, [path])):
        assert tf.gfile.Exists(path) and not tf.gfile.IsDirectory(path)
        assert tf.gfile.Glob(path + "*") == [path + "*"]
        assert tf.train.checkpoint_exists(path)
        assert tf.train.latest_checkpoint("gs://bucket") == checkpoint


def test_a_checkpoint_that_is_there_is_read(checkpoint):
    with one_device(), answered(warm_start.answers("none")):
        assert tf.train.list_variables(checkpoint)[0] == ("a/b", [2, 3])
        assert tf.train.load_variable(checkpoint, "a/b").shape == (2, 3)
        assert tf.train.latest_checkpoint(os.path.dirname(checkpoint)) == checkpoint
        assert tf.gfile.Exists(checkpoint + ".index") and not tf.gfile.Exists("/gone")


def test_paths_of_checkpoints_are_found_in_settings():
    settings = {
        "init_checkpoint": "gs://a/b",
        "vocab": "gs://c/vocab.txt",
        "inner": [{"warm_start_from": "s3://d", "resnet_ckpt": "/local"}],
    }
    assert warm_start.remote_checkpoints(settings) == ("gs://a/b", "s3://d")


def test_params_serve_code_for_dicts_and_for_hparams():
    params = Params({"a": 1, "b": {"c": 2}}, "--params p.yaml", HostContext())
    assert (params["a"], params.a, params.b.c, params["b"]["c"]) == (1, 1, 2, 2)
    assert isinstance(params, dict) and json.loads(json.dumps(params)) == {"a": 1, "b": {"c": 2}}
    assert list(params.values()) == [1, {"c": 2}]
    assert dict(params.values()) == dict(params) == dict(params.values().items())
    assert {**params, "d": 3} == {"a": 1, "b": {"c": 2}, "d": 3}
    params.add_hparam("d", 3)
    params.set_hparam("a", 4)
    params.e = 5
    params.override_from_dict({"f": 6})
    assert (params.d, params.a, params["e"], params.get("f"), params.get("g", 7)) == (3, 4, 5, 6, 7)
    assert "g" not in params and not hasattr(params, "g") and hasattr(params, "a")
    assert params.context.device_for_replica(0) == ("/device:CPU:0", 0)
    for read in (lambda: params["g"], lambda: params.g):
        with pytest.raises((KeyError, AttributeError), match=r"--params p\.yaml has no g"):
            read()
