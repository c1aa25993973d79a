"""A graph of several replicas in one session: each replica run by itself, sums taken between.

The graph is not changed, and no replica is cloned, as the surgery does: the entries of a
cluster are fed with one replica's tensors, and its exits fetched, one replica after another.
Where replicas exchange tensors, all are run up to the exchange, which numpy computes.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Mapping, Set

import numpy as np

from batchinfer.tf1 import tf

ENTRY, EXIT = "TPUReplicatedInput", "TPUReplicatedOutput"
EXCHANGES = ("CrossReplicaSum", "CollectivePermute", "AllToAll", "XlaReplicaId")
Run = Callable[[Any, Mapping[Any, Any]], Any]


class ReplicaRuns:
    """What the outputs need of a graph with replicas.

    Attributes:
        replicas: how many there are; 1 when nothing has to be run apart.
    """

    def __init__(self, outputs: List[Any]) -> None:
        """Look at what tensors need.

        Raises:
            ValueError: replicas that cannot be run one by one, and why.
        """
        needed = ordered(outputs)
        self._entries = [op for op in needed if op.type == ENTRY]
        self._exits = [op for op in needed if op.type == EXIT]
        self._exchanges = [op for op in needed if op.type in EXCHANGES]
        counts = {len(op.inputs) for op in self._entries}
        counts |= {len(op.outputs) for op in self._exits}
        self.replicas = max(counts, default=1)
        if len(counts) > 1:
            raise ValueError(f"clusters of {sorted(counts)} replicas follow each other")
        if any(
            op.type in (ENTRY, EXIT) for op in ordered([t for e in self._entries for t in e.inputs])
        ):
            raise ValueError("a cluster of replicas reads what another one gives")
        if any(entry.outputs[0].dtype == tf.resource for entry in self._entries):
            raise ValueError("each replica has a variable of its own")

    def fetch(self, run: Run, outputs: Any, feeds: Mapping[Any, Any]) -> Any:
        """The outputs, from as many runs as it takes."""
        if self.replicas == 1:
            return run(outputs, feeds)
        entered = run([list(entry.inputs) for entry in self._entries], feeds)
        each: List[Dict[Any, Any]] = [dict(feeds) for _ in range(self.replicas)]
        for entry, values in zip(self._entries, entered):
            for replica, value in zip(each, values):
                replica[entry.outputs[0]] = value
        for exchange in self._exchanges:
            _exchange(run, exchange, each)
        fed = dict(feeds)
        for index, replica in enumerate(each):
            left = run([one.inputs[0] for one in self._exits], replica)
            fed.update({one.outputs[index]: value for one, value in zip(self._exits, left)})
        return run(outputs, fed)


def ordered(tensors: List[Any]) -> List[Any]:
    """The operations that tensors need, each after those it reads, but for loops."""
    found: List[Any] = []
    seen: Set[Any] = set()
    waiting = [(tensor.op, False) for tensor in reversed(tensors)]
    while waiting:
        op, done = waiting.pop()
        if done:
            found.append(op)
        elif op not in seen:
            seen.add(op)
            waiting.append((op, True))
            waiting += [(tensor.op, False) for tensor in op.inputs if tensor.op not in seen]
    return found


def _exchange(run: Run, op: Any, each: List[Dict[Any, Any]]) -> None:
    """Give every replica its result of an op that reads from others."""
    if op.type == "XlaReplicaId":
        results = [np.int32(index) for index in range(len(each))]
    else:
        values = [run(op.inputs[0], replica) for replica in each]
        told = np.asarray(tf.get_static_value(op.inputs[1]))
        results = _EXCHANGED[op.type](op, values, told)
    for replica, result in zip(each, results):
        replica[op.outputs[0]] = result


def _summed(op: Any, values: List[Any], groups: Any) -> List[Any]:
    """The sum over a replica's group; bfloat16 is added in float32 and rounded once."""
    wide = [value.astype(np.float32) if value.dtype.kind == "V" else value for value in values]
    sums = {}
    for group in groups:
        total = sum(wide[index] for index in group)
        sums.update({int(index): np.asarray(total).astype(values[0].dtype) for index in group})
    return [sums[index] for index in range(len(values))]


def _permuted(op: Any, values: List[Any], pairs: Any) -> List[Any]:
    """What a replica is sent; zeros where nothing is."""
    results = [np.zeros_like(value) for value in values]
    for source, target in pairs:
        results[target] = values[source]
    return results


def _all_to_all(op: Any, values: List[Any], groups: Any) -> List[Any]:
    """The i-th piece of each member of a group goes to the group's i-th member."""
    split, joined = op.get_attr("split_dimension"), op.get_attr("concat_dimension")
    results: List[Any] = list(values)
    for group in groups:
        pieces = [np.split(values[index], len(group), axis=split) for index in group]
        for place, index in enumerate(group):
            results[index] = np.concatenate([piece[place] for piece in pieces], axis=joined)
    return results


_EXCHANGED = {
    "CrossReplicaSum": _summed,
    "CollectivePermute": _permuted,
    "AllToAll": _all_to_all,
}
