"""Ways to hand batches to a TensorFlow 1.15 session: CPU per row and rows/s of each, in turn.

    .venv/bin/python benchmarks/feeding.py [--workloads tabular,image,text] [--rounds 7]

The model of each workload (see benchmarks/README.md) with its variables as constants, so that one
graph serves all; batches lie in memory as numpy arrays. The ways:

callable   `session.make_callable`, what batchinfer uses
options    the same from CallableOptions (`session._make_callable_from_options`)
feed_dict  `session.run` with a feed_dict
staging    a StagingArea of two batches, filled by a thread of its own, as a copy to a GPU would be
dataset    `tf.data.Dataset.from_generator` with a prefetch of two batches

Each with one caller and TensorFlow's default threads (`1 x all`), and with two callers whose ops
use one thread (`2 x 1`). The median of the rounds counts; CPU is `time.process_time`.
"""

from __future__ import annotations

import abc
import argparse
import itertools
import os
import statistics
import sys
import threading
import time
from typing import Any, Callable, Iterator

if __name__ == "__main__":
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.ops import data_flow_ops

from batchinfer.tf1 import tf
from benchmarks.prepare import prepare
from benchmarks.workloads import WORKLOADS

BATCH_ROWS = {"tabular": 4096, "image": 64, "text": 16}
AHEAD = 2
THREADS = {"1 x all": (1, 0), "2 x 1": (2, 1)}

Run = Callable[[], Any]


def frozen(bundle: str, output: str) -> Any:
    """The bundle's graph as one GraphDef with constants for variables."""
    with tf.Graph().as_default(), tf.Session() as session:
        tf.saved_model.loader.load(session, [tf.saved_model.SERVING], bundle)
        graph_def = tf.graph_util.extract_sub_graph(session.graph.as_graph_def(), [output])
        for node in graph_def.node:
            if node.op == "ReadVariableOp":
                node.CopyFrom(constant(node.name, session.run(f"{node.name}:0")))
        return tf.graph_util.extract_sub_graph(graph_def, [output])


def constant(name: str, values: np.ndarray) -> Any:
    tensor = tf.make_tensor_proto(values)
    dtype = tf.AttrValue(type=tensor.dtype)
    return tf.NodeDef(
        op="Const", name=name, attr={"dtype": dtype, "value": tf.AttrValue(tensor=tensor)}
    )


def arrays(batches: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The batches for ever, from several threads."""
    numbers = itertools.count()
    while True:
        yield batches[next(numbers) % len(batches)]


class Way(abc.ABC):
    """One way, ready to run: `run` scores one batch and gives its predictions."""

    def __init__(self, graph_def: Any, feed: str, fetch: str, intra: int, batches: Any) -> None:
        self._graph = tf.Graph()
        config = tf.ConfigProto(intra_op_parallelism_threads=intra)
        with self._graph.as_default():
            x = self._input(batches)
            (y,) = tf.import_graph_def(graph_def, {feed: x}, [fetch], name="")
            self._session = tf.Session(config=config)
        self.run = self._runner(x, y, batches)

    def _input(self, batches: Any) -> Any:
        return tf.placeholder(batches[0].dtype, [None, *batches[0].shape[1:]])

    @abc.abstractmethod
    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        """What scores one batch when it is called."""

    def close(self) -> None:
        self._session.close()


class Callables(Way):
    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        call, found = self._session.make_callable([y], feed_list=[x]), Locked(arrays(batches))
        return lambda: call(next(found))


class Options(Way):
    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        options = config_pb2.CallableOptions(feed=[x.name], fetch=[y.name])
        call, found = self._session._make_callable_from_options(options), Locked(arrays(batches))
        return lambda: call(next(found))


class FeedDict(Way):
    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        found = Locked(arrays(batches))
        return lambda: self._session.run([y], {x: next(found)})


class Staging(Way):
    def _input(self, batches: Any) -> Any:
        self._fed = super()._input(batches)
        area = data_flow_ops.StagingArea(
            [self._fed.dtype], shapes=[self._fed.shape], capacity=AHEAD
        )
        self._put = area.put([self._fed])
        (x,) = area.get()
        x.set_shape(self._fed.shape)
        return x

    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        put = self._session.make_callable([self._put], feed_list=[self._fed])
        get, found = self._session.make_callable([y]), Locked(arrays(batches))
        self._open = True

        def fill() -> None:
            while self._open:
                put(next(found))

        self._thread = threading.Thread(target=fill, daemon=True)
        self._thread.start()
        return lambda: get()

    def close(self) -> None:
        self._open = False
        for _ in range(AHEAD + 1):  # so that a put that waits for room ends
            if self._thread.is_alive():
                self.run()
        self._thread.join()
        super().close()


class Dataset(Way):
    def _input(self, batches: Any) -> Any:
        shape = [None, *batches[0].shape[1:]]
        made = tf.data.Dataset.from_generator(lambda: arrays(batches), batches[0].dtype, shape)
        self._iterator = tf.data.make_initializable_iterator(made.prefetch(AHEAD))
        return self._iterator.get_next()

    def _runner(self, x: Any, y: Any, batches: Any) -> Run:
        self._session.run(self._iterator.initializer)
        call = self._session.make_callable([y])
        return lambda: call()


WAYS = {
    "callable": Callables,
    "options": Options,
    "feed_dict": FeedDict,
    "staging": Staging,
    "dataset": Dataset,
}


class Locked:
    """`next` of a generator from several threads at once."""

    def __init__(self, items: Iterator[Any]) -> None:
        self._items, self._lock = items, threading.Lock()

    def __next__(self) -> Any:
        with self._lock:
            return next(self._items)


def measure(way: Way, callers: int, seconds: float, batch_rows: int) -> tuple[float, float]:
    """CPU-seconds per million rows, and rows/s."""
    way.run()
    runs = itertools.count()
    cpu, began = time.process_time(), time.perf_counter()

    def call() -> None:
        while time.perf_counter() - began < seconds:
            way.run()
            next(runs)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = next(runs) * batch_rows
    return (time.process_time() - cpu) / rows * 1e6, rows / (time.perf_counter() - began)


def compare(name: str, rounds: int, seconds: float) -> None:
    workload = WORKLOADS[name]
    prepared = prepare(os.path.join("build", "bench"), workload, 0.01)
    size = BATCH_ROWS[name]
    task = prepared.task("plain", "", "", batch_rows=size)
    graph_def = frozen(task.bundle, task.fetch.split(":")[0])
    random = np.random.RandomState(0)
    high = 1 if np.dtype(task.dtype).kind == "f" else 100
    batches = [
        (random.random_sample((size, *task.row_shape)) * high).astype(task.dtype) for _ in range(8)
    ]
    found: dict[Any, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for way, (threads, (callers, intra)) in itertools.product(WAYS, THREADS.items()):
            made = WAYS[way](graph_def, task.feed, task.fetch, intra, batches)
            made_at = found.setdefault((way, threads), [])
            made_at.append(measure(made, callers, seconds, size))
            made.close()
    print(f"{name}, batches of {size}: CPU s/Mrow, rows/s, rows/s against callable 2 x 1 (paired)")
    base = found["callable", "2 x 1"]
    for (way, threads), pairs in found.items():
        cpu, rate = (statistics.median(one) for one in zip(*pairs))
        ratio = statistics.median(mine[1] / its[1] for mine, its in zip(pairs, base))
        print(f"  {way:10} {threads:8} {cpu:9.3f} {rate:11,.0f} {ratio:6.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workloads", default="tabular,image,text")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    flags = parser.parse_args()
    for name in flags.workloads.split(","):
        compare(name, flags.rounds, flags.seconds)
    sys.stdout.flush()
    os._exit(0)  # staging's and the data set's own threads may be in a run


if __name__ == "__main__":
    main()
