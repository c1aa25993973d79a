"""What makes a graph's variable of the checkpoint's, where they differ by a stated reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple, Union

from batchinfer.tf1 import tf

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Concat:
    """Several shards -> one, along `axis`."""

    axis: int

    @property
    def text(self) -> str:
        return f"concat {self.axis}"

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        first, axis = shapes[0], self.axis
        if not -len(first) <= axis < len(first):
            raise ValueError(f"concat {axis}: the shards have {len(first)} dimensions")
        axis %= len(first)
        for one in shapes:
            if len(one) != len(first) or _without(one, axis) != _without(first, axis):
                listed = ", ".join(map(str, map(list, shapes)))
                raise ValueError(f"concat {axis}: the shards {listed} differ in another axis")
        return first[:axis] + (sum(one[axis] for one in shapes),) + first[axis + 1 :]

    def apply(self, values: Sequence[Any]) -> Any:
        return tf.concat(list(values), self.axis)


@dataclass(frozen=True)
class UnpermuteMod:
    """Rows of a TPU embedding table with partition_strategy='mod' over `hosts` -> rows by id.

    Host h holds the ids with id % hosts == h one after the other, and the checkpoint the hosts:
    row `id` is the checkpoint's row offset[id % hosts] + id // hosts.
    """

    hosts: int

    @property
    def text(self) -> str:
        return f"unpermute_mod {self.hosts}"

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        if self.hosts < 1 or not shapes[0]:
            raise ValueError(
                f"{self.text}: expected a number of hosts from 1 and rows, found {shapes[0]}"
            )
        return shapes[0]

    def apply(self, values: Sequence[Any]) -> Any:
        table = values[0]
        num_rows = tf.shape(table, out_type=tf.int64)[0]
        hosts = tf.range(self.hosts, dtype=tf.int64)
        sizes = (num_rows - hosts + self.hosts - 1) // self.hosts
        offsets = tf.cumsum(sizes, exclusive=True)
        ids = tf.range(num_rows)
        return tf.gather(table, tf.gather(offsets, ids % self.hosts) + ids // self.hosts)


@dataclass(frozen=True)
class Reshape:
    """The same values in another shape; one size may be -1."""

    to: Shape

    @property
    def text(self) -> str:
        return f"reshape {list(self.to)}"

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        before, known = _volume(shapes[0]), _volume([size for size in self.to if size != -1])
        open_sizes = list(self.to).count(-1)
        if open_sizes == 1 and known and before % known == 0:
            return tuple(before // known if size == -1 else size for size in self.to)
        if open_sizes or known != before:
            raise ValueError(f"{self.text}: {list(shapes[0])} has {before} values")
        return self.to

    def apply(self, values: Sequence[Any]) -> Any:
        return tf.reshape(values[0], self.to)


@dataclass(frozen=True)
class Transpose:
    """Axes in another order: axis i of the result is axis `perm[i]`."""

    perm: Shape

    @property
    def text(self) -> str:
        return f"transpose {list(self.perm)}"

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        if sorted(self.perm) != list(range(len(shapes[0]))):
            raise ValueError(f"{self.text}: expected each of the axes of {list(shapes[0])} once")
        return tuple(shapes[0][axis] for axis in self.perm)

    def apply(self, values: Sequence[Any]) -> Any:
        return tf.transpose(values[0], self.perm)


@dataclass(frozen=True)
class Cast:
    """Values in another dtype, such as float32."""

    dtype: str

    @property
    def text(self) -> str:
        return f"cast {self.dtype}"

    def shape(self, shapes: Sequence[Shape]) -> Shape:
        return shapes[0]

    def apply(self, values: Sequence[Any]) -> Any:
        return tf.cast(values[0], tf.as_dtype(self.dtype))


Step = Union[Concat, UnpermuteMod, Reshape, Transpose, Cast]


def shape_after(steps: Sequence[Step], shapes: Sequence[Shape]) -> Shape:
    """The shape that the steps give.

    Raises:
        ValueError: a step does not fit; the text says which.
    """
    found: List[Shape] = list(shapes)
    for step in steps:
        if len(found) > 1 and not isinstance(step, Concat):
            raise ValueError(f"{step.text}: expected concat first, to make one of {len(found)}")
        found = [step.shape(found)]
    if len(found) > 1:
        raise ValueError(f"{len(found)} sources and no concat")
    return found[0]


def dtype_after(steps: Sequence[Step], dtype: str) -> str:
    for step in steps:
        dtype = step.dtype if isinstance(step, Cast) else dtype
    return dtype


def _without(shape: Shape, axis: int) -> Shape:
    return shape[:axis] + shape[axis + 1 :]


def _volume(shape: Sequence[int]) -> int:
    volume = 1
    for size in shape:
        volume *= size
    return volume
