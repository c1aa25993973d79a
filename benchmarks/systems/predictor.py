"""A model as someone who knows TensorFlow 1.15 would call it; or a device that only takes time."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable

import numpy as np

from benchmarks.task import Task

Predict = Callable[[Any], np.ndarray]


def make_predictor(task: Task, intra_op_threads: int = 0) -> Predict:
    """`predict(array) -> (n, num_outputs)`, safe to call from several threads.

    Args:
        intra_op_threads: 0 is TensorFlow's default, every core.
    """
    if task.device_rows_per_s:
        return SimulatedDevice(task.device_rows_per_s, task.num_outputs)
    return open_session(task, intra_op_threads).make_callable(task.fetch, feed_list=[task.feed])


def open_session(task: Task, intra_op_threads: int = 0) -> Any:
    """The SavedModel in a session of its own."""
    from batchinfer.tf1 import tf

    config = tf.ConfigProto(intra_op_parallelism_threads=intra_op_threads)
    session = tf.Session(graph=tf.Graph(), config=config)
    with session.graph.as_default():
        tf.saved_model.loader.load(session, [tf.saved_model.SERVING], task.bundle)
    return session


class SimulatedDevice:
    """Takes the time that a device of this rate would take, one batch after another, and no CPU.

    It sleeps until the moment at which the device would be done, so that a sleep that lasts too
    long does not make it slower, while a moment without a batch is lost for ever.
    """

    def __init__(self, rows_per_s: float, num_outputs: int) -> None:
        self._rows_per_s = rows_per_s
        self._num_outputs = num_outputs
        self._free_at = 0.0
        self._lock = threading.Lock()

    def __call__(self, array: Any) -> np.ndarray:
        with self._lock:
            started = max(time.perf_counter(), self._free_at)
            done = self._free_at = started + len(array) / self._rows_per_s
        time.sleep(max(0.0, done - time.perf_counter()))
        return np.zeros((len(array), self._num_outputs), np.float32)
