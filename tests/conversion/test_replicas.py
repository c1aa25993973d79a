"""What TF 1.15's API builds for several TPU cores, run on one device after surgery."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.errors import UnsupportedOpsError
from batchinfer.tf1 import tf
from conversion.graphs.clusters import Clusters
from conversion.graphs.graph import GraphView
from conversion.surgery import operate
from tests.conversion.graphs import calls, const, graph, lines, node, run

F32 = tf.float32
ROWS = np.arange(24, dtype=np.float32).reshape(8, 3) / 7


def collectives():
    """The ops of tensorflow/python/tpu/ops, of which tf.tpu has cross_replica_sum only."""
    from tensorflow.python.tpu.ops import tpu_ops

    return tpu_ops


def on_cores(computation, num_replicas, rows=ROWS):
    """(n, 3) rows, a part of them on each core -> all parts' outputs, one below the other."""
    with tf.Graph().as_default() as built:
        x = tf.placeholder(F32, rows.shape, name="x")
        parts = tf.split(x, num_replicas)
        outputs = tf.tpu.replicate(computation, [[part] for part in parts])
        tf.identity(tf.concat([output[0] for output in outputs], axis=0), name="y")
        return built.as_graph_def()


def converted(graph_def, fetch="y"):
    after, _ = operate(graph_def, [fetch])
    left = {one.op for one in after.node if one.op.startswith(("TPU", "CrossReplica", "Xla"))}
    assert not left
    return after


def predicted(graph_def, rows=ROWS):
    return run(converted(graph_def), "y:0", {"x:0": rows})


def plain(computation, num_replicas, rows=ROWS):
    """The same computation on each part, without a TPU."""
    with tf.Graph().as_default() as built:
        parts = [computation(tf.constant(part)) for part in np.split(rows, num_replicas)]
        tf.identity(tf.concat(parts, axis=0), name="y")
        return run(built.as_graph_def(), "y:0")


def normalised_by_part(x):
    return (x - tf.reduce_mean(x, 0)) * 2.0


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_each_replica_computes_its_own_part(num_replicas):
    found = predicted(on_cores(normalised_by_part, num_replicas))
    assert np.array_equal(found, plain(normalised_by_part, num_replicas))


@pytest.mark.parametrize("api", ["batch_parallel", "shard"])
def test_shards_of_a_batch_come_out_in_their_order(api):
    with tf.Graph().as_default() as built:
        x = tf.placeholder(F32, [8, 3], name="x")
        outputs = getattr(tf.tpu, api)(normalised_by_part, [x], num_shards=4)
        tf.identity(outputs[0], name="y")
        found = predicted(built.as_graph_def())
    assert np.array_equal(found, plain(normalised_by_part, 4))


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_a_mean_across_replicas_is_the_mean_of_the_whole_batch(num_replicas):
    def computation(x):
        return x - tf.tpu.cross_replica_sum(tf.reduce_mean(x, 0)) / num_replicas

    found = predicted(on_cores(computation, num_replicas))
    np.testing.assert_allclose(found, ROWS - ROWS.mean(0), rtol=0, atol=1e-6)


def test_a_sum_in_groups_is_taken_over_the_members_of_each_group():
    def computation(x):
        return tf.tpu.cross_replica_sum(x, [[0, 2], [3, 1]])

    a, b, c, d = np.split(ROWS, 4)
    expected = np.concatenate([a + c, b + d, a + c, b + d])
    assert np.array_equal(predicted(on_cores(computation, 4)), expected)


def test_groups_that_are_computed_from_constants_are_known():
    def computation(x):
        groups = tf.transpose(tf.reshape(tf.range(4), [2, 2]))
        return tf.tpu.cross_replica_sum(x, groups)

    a, b, c, d = np.split(ROWS, 4)
    expected = np.concatenate([a + c, b + d, a + c, b + d])
    assert np.array_equal(predicted(on_cores(computation, 4)), expected)


def test_no_groups_at_all_are_one_group_of_all():
    def computation(x):
        return collectives().gen_tpu_ops.cross_replica_sum(x, tf.zeros([0], tf.int32))

    a, b = np.split(ROWS, 2)
    assert np.array_equal(predicted(on_cores(computation, 2)), np.concatenate([a + b, a + b]))


def test_groups_of_one_leave_each_replica_its_own_value():
    def computation(x):
        return tf.tpu.cross_replica_sum(x, [[0], [1]]) * 1.0

    assert np.array_equal(predicted(on_cores(computation, 2)), ROWS)


@pytest.mark.parametrize(
    "groups, num_replicas",
    [
        ([[0, 1, 2, 3, 4, 5, 6, 7]], 1),  # named for eight cores, exported for one
        ([[0, 1], [2, 3]], 2),
        ([[0]], 2),  # replica 1 is in no group
        ([[0, 0]], 2),
    ],
)
def test_groups_of_other_replicas_than_the_graphs_stay_to_be_refused(groups, num_replicas):
    before = on_cores(lambda x: tf.tpu.cross_replica_sum(x, groups), num_replicas)
    after, _ = operate(before, ["y"])
    assert [one.op for one in after.node].count("CrossReplicaSum") == num_replicas


def test_blocks_are_exchanged_as_all_to_all_documents():
    def computation(x):  # replica 0 has [[A, B]] and replica 1 has [[C, D]]
        return collectives().all_to_all(x, 0, 1, 2, [[0, 1]])

    rows = np.array([[1, 2], [3, 4]], np.float32)
    found = predicted(on_cores(computation, 2, rows), rows)
    assert found.tolist() == [[1], [3], [2], [4]]


def test_blocks_are_exchanged_within_groups_only_and_in_their_order():
    def computation(x):
        return collectives().all_to_all(x, 0, 1, 2, [[2, 0], [1, 3]])

    rows = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
    found = predicted(on_cores(computation, 4, rows), rows)
    assert found.tolist() == [[6], [2], [3], [7], [5], [1], [4], [8]]


def test_a_permutation_sends_to_its_targets_and_zeros_to_the_rest():
    def computation(x):
        return collectives().collective_permute(x, [[0, 1], [1, 2], [2, 3]])

    rows = np.array([[1], [2], [3], [4]], np.float32)
    assert predicted(on_cores(computation, 4, rows), rows).tolist() == [[0], [1], [2], [3]]


def test_a_replica_knows_its_number():
    from tensorflow.compiler.tf2xla.python import xla

    def computation(x):
        return x * 0.0 + tf.cast(xla.replica_id(), F32)

    assert predicted(on_cores(computation, 4))[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_number_of_the_only_replica_is_zero():
    before = graph(node("id", "XlaReplicaId"), node("y", "Identity", "id", T=tf.int32))
    assert run(converted(before), "y:0") == 0


def halve_until_small(x):
    """Goes round as often as the part needs, nested; keeps what it saw in a TensorArray."""
    seen = tf.TensorArray(F32, 0, dynamic_size=True, clear_after_read=False)

    def again(step, value, seen):
        del step, seen
        return tf.reduce_max(value) > 1.0

    def step(step, value, seen):
        _, less = tf.while_loop(lambda i, _: i < 2, lambda i, v: (i + 1, v * 0.8), [0, value])
        return step + 1, less, seen.write(step, tf.reduce_sum(less))

    steps, value, seen = tf.while_loop(again, step, [0, x, seen])
    return value + tf.cast(steps, F32) + tf.reduce_sum(seen.stack())


@pytest.mark.parametrize("num_replicas", [1, 2, 4])
def test_each_replicas_loop_goes_round_as_often_as_its_part_needs(num_replicas):
    found = predicted(on_cores(halve_until_small, num_replicas))
    assert np.array_equal(found, plain(halve_until_small, num_replicas))


def test_each_replica_takes_its_own_branch():
    def computation(x):
        return tf.cond(tf.reduce_max(x) > 2.0, lambda: x * 10.0, lambda: tf.zeros_like(x) + 5.0)

    found = predicted(on_cores(computation, 4))
    assert np.array_equal(found, plain(computation, 4))


def test_a_sum_across_replicas_inside_a_loop_is_taken_in_each_round():
    def computation(x):
        def body(step, value):
            return step + 1, value / 2 + tf.tpu.cross_replica_sum(value) / 8

        return tf.while_loop(lambda step, _: step < 3, body, [0, x])[1]

    parts = np.stack(np.split(ROWS, 4))
    for _ in range(3):
        parts = parts / 2 + parts.sum(0) / 8
    found = predicted(on_cores(computation, 4))
    np.testing.assert_allclose(found, parts.reshape(8, 3), rtol=0, atol=1e-6)


def test_blocks_are_exchanged_inside_a_loop():
    def computation(x):
        def body(step, value):
            return step + 1, collectives().all_to_all(value, 0, 0, 2, [[0, 1]])

        return tf.while_loop(lambda step, _: step < 3, body, [0, x])[1]

    rows = np.array([[1], [2], [3], [4]], np.float32)
    assert predicted(on_cores(computation, 2, rows), rows)[:, 0].tolist() == [1, 3, 2, 4]


def test_replicas_share_their_variables_and_constants():
    def computation(x):
        with tf.variable_scope("net", reuse=tf.AUTO_REUSE):
            return tf.layers.dense(x, 2, name="dense") * tf.constant(3.0)

    after = converted(on_cores(computation, 4))
    ops = [one.op for one in after.node]
    assert ops.count("VarHandleOp") == 2
    assert ops.count("MatMul") == 4
    assert [one.name for one in after.node if one.name.endswith("net/dense/MatMul/replica_3")]
    assert [one.name for one in after.node if "net/Const" in one.name] == ["net/Const"]


def test_two_clusters_of_different_sizes_follow_each_other():
    with tf.Graph().as_default() as built:
        x = tf.placeholder(F32, [8, 3], name="x")
        first = tf.tpu.batch_parallel(lambda x: x - tf.reduce_mean(x), [x], num_shards=4)[0]
        second = tf.tpu.batch_parallel(lambda x: x * tf.reduce_max(x), [first], num_shards=2)[0]
        tf.identity(tf.tpu.rewrite(lambda x: x - tf.reduce_sum(x), [second])[0], name="y")
        found = predicted(built.as_graph_def())
    parts = np.stack([part - part.mean() for part in np.split(ROWS, 4)]).reshape(8, 3)
    parts = np.stack([part * part.max() for part in np.split(parts, 2)]).reshape(8, 3)
    np.testing.assert_allclose(found, parts - parts.sum(), rtol=0, atol=1e-5)


def test_outside_compilation_runs_once_per_replica():
    def computation(x):
        return tf.tpu.outside_compilation(lambda y: y - tf.reduce_mean(y, 0), x * 2.0) + 1.0

    found = predicted(on_cores(computation, 2))
    expected = plain(lambda x: x * 2.0 - tf.reduce_mean(x * 2.0, 0) + 1.0, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_an_assert_on_one_replica_fails_the_whole():
    def computation(x):
        with tf.control_dependencies([tf.Assert(tf.reduce_max(x) < 3.0, [x])]):
            return tf.identity(x)

    after = converted(on_cores(computation, 2))
    assert run(after, "y:0", {"x:0": ROWS * 0}).shape == (8, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run(after, "y:0", {"x:0": ROWS})  # its largest value is 23/7, on replica 1


def test_a_tensor_inside_of_several_replicas_cannot_be_an_output():
    with tf.Graph().as_default() as built:
        x = tf.placeholder(F32, [8, 3], name="x")
        tf.tpu.batch_parallel(lambda x: tf.identity(x, name="inner") * 2.0, [x], num_shards=2)
        before = built.as_graph_def()
    before.node.add().CopyFrom(node("y", "Identity", "inner", T=F32))
    with pytest.raises(UnsupportedOpsError, match="y reads inner inside a cluster of 2 replicas"):
        operate(before, ["y"])


def test_a_tensor_that_is_the_same_on_all_replicas_can_be_an_output():
    with tf.Graph().as_default() as built:
        x = tf.placeholder(F32, [8, 3], name="x")
        tf.tpu.batch_parallel(
            lambda x: x + tf.add(tf.zeros([3]), 2.0, name="inner"), [x], num_shards=2
        )
        before = built.as_graph_def()
    before.node.add().CopyFrom(node("y", "Identity", "inner", T=F32))
    assert run(converted(before), "y:0").tolist() == [2, 2, 2]


def test_inputs_that_are_padded_for_the_tpu_are_refused():
    with tf.Graph().as_default() as built:
        parts = [tf.placeholder(F32, [None]), tf.placeholder(F32, [None])]
        outputs = tf.tpu.replicate(
            lambda x: tf.reduce_mean(x),
            [[part] for part in parts],
            maximum_shapes=[tf.TensorShape([4])],
        )
        tf.identity(outputs[0][0], name="y")
        before = built.as_graph_def()
    with pytest.raises(UnsupportedOpsError, match="pads inputs to maximum_shapes"):
        operate(before, ["y"])


def test_ends_without_marked_nodes_between_are_refused():
    before = on_cores(normalised_by_part, 2)
    for one in before.node:
        one.attr.pop("_tpu_replicate", None)
    with pytest.raises(UnsupportedOpsError, match="export the graph without stripping attributes"):
        operate(before, ["y"])


def test_an_exchange_in_the_body_of_a_functional_loop_is_refused_for_several_replicas():
    from tensorflow.python.ops import while_v2

    def computation(x):
        def body(step, value):
            return step + 1, tf.tpu.cross_replica_sum(value)

        return while_v2.while_loop(lambda step, _: step < 3, body, [tf.constant(0), x])[1]

    with pytest.raises(UnsupportedOpsError, match="calls a function with CrossReplicaSum on 2 rep"):
        operate(on_cores(computation, 2), ["y"])


def test_mirrored_variables_are_one():
    handles = [
        node("v", "VarHandleOp", dtype=F32, shared_name=b"v"),
        node("v/replica_1", "VarHandleOp", dtype=F32, shared_name=b"v/replica_1"),
    ]
    marked = {"_tpu_replicate": b"cluster"}
    before = graph(
        *handles,
        node("in", "TPUReplicatedInput", "v", "v/replica_1", N=2, T=tf.resource),
        node("read", "ReadVariableOp", "in", dtype=F32, **marked),
        node("out", "TPUReplicatedOutput", "read", num_replicas=2, T=F32),
        node("y", "Add", "out", "out:1", T=F32),
    )
    after = converted(before)
    assert "in/replica_1 = Identity(v)" in lines(after)
    assert "v/replica_1" not in {one.name for one in after.node}


def test_a_cluster_in_a_function_is_copied_under_the_name_of_its_call():
    before = graph(
        const("a", 3.0),
        const("b", 4.0),
        node("core", "TPUOrdinalSelector"),
        node("call", "TPUPartitionedCall", "a", "b", "core", f=calls("f"), Tin=[F32, F32],
             Tout=[F32, F32]),
        node("y", "Sub", "call:1", "call", T=F32),
    )  # fmt: skip
    marked = {"_tpu_replicate": b"cluster"}
    body = [
        node("meta", "TPUReplicateMetadata", num_replicas=2, **marked),
        node("in", "TPUReplicatedInput", "p", "q", N=2, T=F32),
        node("neg", "Neg", "in:output:0", "^meta", T=F32, **marked),
        node("out", "TPUReplicatedOutput", "neg:y:0", num_replicas=2, T=F32),
    ]
    function = before.library.function.add()
    function.signature.name = "f"
    for name in "pq":
        function.signature.input_arg.add(name=name, type=F32.as_datatype_enum)
    for index in (0, 1):
        function.signature.output_arg.add(name=f"o{index}", type=F32.as_datatype_enum)
        function.ret[f"o{index}"] = f"out:outputs:{index}"
    function.node_def.extend(body)
    assert run(converted(before), "y:0") == -1.0  # -4 - (-3)


def test_a_graph_without_clusters_has_none():
    assert not Clusters(GraphView(graph(const("a", 1.0)))).members
