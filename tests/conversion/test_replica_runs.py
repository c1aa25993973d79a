"""References of graphs with several replicas, run without cloning any of them."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.tf1 import tf
from conversion.graphs.tensors import imported
from conversion.proof.bare import bare
from conversion.proof.replica_runs import ReplicaRuns
from conversion.proof.source_graph import session_config

X = np.arange(24, dtype=np.float32).reshape(12, 2)


def outputs_of(compute, replicas=3):
    """X split over replicas that `compute`, and what they give, stacked in their order."""
    with tf.Graph().as_default() as graph:
        x = tf.placeholder(tf.float32, [12, 2], name="x")
        parts = tf.split(x, replicas)
        results = tf.tpu.replicate(lambda part: [compute(part)], [[part] for part in parts])
        tf.concat([one[0] for one in results], axis=0, name="y")
    made = imported(bare(graph.as_graph_def()), "the test's graph")
    with tf.Session(graph=made, config=session_config()) as session:
        y, x = made.get_tensor_by_name("y:0"), made.get_tensor_by_name("x:0")
        found = ReplicaRuns([y])
        assert found.replicas == replicas
        return found.fetch(session.run, y, {x: X})


def test_every_replica_computes_its_own_part():
    expected = np.concatenate([part - part.mean() for part in np.split(X, 3)])
    found = outputs_of(lambda part: part - tf.reduce_mean(part))
    assert found.tolist() == expected.tolist()


def test_sums_over_replicas_are_taken_between_their_runs():
    def compute(part):
        mean = tf.tpu.cross_replica_sum(tf.reduce_mean(part)) / 3
        spread = tf.tpu.cross_replica_sum(tf.reduce_mean(tf.abs(part - mean))) / 3
        return (part - mean) / spread  # the second sum needs the first

    expected = (X - X.mean()) / np.abs(X - X.mean()).mean()
    np.testing.assert_allclose(outputs_of(compute), expected, rtol=1e-6)


def test_sums_over_groups_stay_in_their_group():
    groups = [[0, 2], [1, 3]]
    found = outputs_of(lambda part: tf.tpu.cross_replica_sum(part, groups), replicas=4)
    one, two, three, four = np.split(X, 4)
    expected = np.concatenate([one + three, two + four, one + three, two + four])
    assert found.tolist() == expected.tolist()


def test_tensors_sent_to_other_replicas_arrive():
    from tensorflow.python.tpu.ops import tpu_ops

    found = outputs_of(lambda part: tpu_ops.collective_permute(part, [[0, 1], [1, 2]]))
    assert found.tolist() == np.concatenate([np.zeros([4, 2]), X[:8]]).tolist()
    swapped = outputs_of(
        lambda part: tpu_ops.all_to_all(part, 0, 0, 2, group_assignment=[[0, 1]]), replicas=2
    )
    one, two, three, four = np.split(X, 4)
    assert swapped.tolist() == np.concatenate([one, three, two, four]).tolist()


def test_a_graph_without_replicas_is_run_as_it_is():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [12, 2])
        y = x * 2
        assert ReplicaRuns([y]).fetch(session.run, y, {x: X}).tolist() == (2 * X).tolist()


def test_clusters_that_feed_each_other_are_refused():
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [12, 2])
        first = tf.tpu.replicate(lambda x: [x * 2], [[x], [x]])
        second = tf.tpu.replicate(lambda x: [x * 3], [[first[0][0]], [first[1][0]]])
        with pytest.raises(ValueError, match="a cluster of replicas reads what another one gives"):
            ReplicaRuns([second[0][0]])
