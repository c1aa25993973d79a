"""Seeded Parquet: a key and one column of inputs, in as many files as a job's length asks for."""

from __future__ import annotations

import itertools
import os
import shutil
from typing import Any, Callable, Iterable, Union

import numpy as np

from batchinfer.arrow import pa, pq
from benchmarks.task import KEY

Column = Union[pa.Array, pa.ChunkedArray]
Random = np.random.RandomState


def floats(rows: int, random: Random) -> Column:
    """list<float>: 64 standard normal numbers a row."""
    return as_lists(random.standard_normal(rows * 64).astype(np.float32), 64)


def pixels(rows: int, random: Random) -> Column:
    """list<uint8>: 64x64x3 in row-major order, flat."""
    return as_lists(_images(rows, random).reshape(-1), 64 * 64 * 3)


def tokens(rows: int, random: Random) -> Column:
    """list<int32>: 128 ids below 8192."""
    return as_lists(random.randint(0, 8192, rows * 128).astype(np.int32), 128)


def jpegs(rows: int, random: Random) -> Column:
    """binary: the same images as JPEG."""
    from batchinfer.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        image = tf.placeholder(tf.uint8, [64, 64, 3])
        encode = session.make_callable(tf.image.encode_jpeg(image, quality=90), feed_list=[image])
        return pa.array([encode(one) for one in _images(rows, random)], pa.binary())


def examples(rows: int, random: Random) -> Column:
    """binary: tf.Example records with `x`, 64 floats."""
    from batchinfer.tf1 import tf

    def record(values: Any) -> bytes:
        feature = tf.train.Feature(float_list=tf.train.FloatList(value=values))
        features = tf.train.Features(feature={"x": feature})
        return tf.train.Example(features=features).SerializeToString()

    values = random.standard_normal((rows, 64)).astype(np.float32)
    return pa.array([record(one) for one in values], pa.binary())


def _images(rows: int, random: Random) -> np.ndarray:
    """(rows, 64, 64, 3) uint8: blocks of 8x8 pixels with some noise, so that a codec has work."""
    blocks = random.randint(0, 224, (rows, 8, 8, 3)).astype(np.uint8)
    noise = random.randint(0, 32, (rows, 64, 64, 3)).astype(np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2) + noise


def as_lists(flat: np.ndarray, width: int) -> pa.ListArray:
    """A list column of `width` values a row."""
    offsets = np.arange(0, len(flat) + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat))


def write_once(
    folder: str,
    values: Callable[[int, Random], Column],
    column: str,
    rows: int,
    rows_per_file: int,
    rows_per_group: int,
    seed: int,
) -> str:
    """Write `rows` rows, unless the folder is there; made under another name and moved.

    A row group is made at a time, so that memory does not grow with the file.
    """
    if os.path.isdir(folder):
        return folder
    making = folder + ".making"
    shutil.rmtree(making, ignore_errors=True)
    os.makedirs(making)
    random = Random(seed)
    for number, first in enumerate(range(0, rows, rows_per_file)):
        last = min(first + rows_per_file, rows)
        groups = (
            pa.table(
                {
                    KEY: pa.array(np.arange(start, stop, dtype=np.int64)),
                    column: values(stop - start, random),
                }
            )
            for start in range(first, last, rows_per_group)
            for stop in [min(start + rows_per_group, last)]
        )
        _write(os.path.join(making, f"data-{number:05d}.parquet"), groups)
    os.rename(making, folder)
    return folder


def _write(path: str, groups: Iterable[pa.Table]) -> None:
    """One file with a row group for each table, as pyarrow's defaults write it.

    But floats without a dictionary, which costs every reader and saves nothing.
    """
    tables = iter(groups)
    head = next(tables)
    kind = head.schema[1].type
    dictionary = pa.types.is_list(kind) and pa.types.is_integer(kind.value_type)
    with pq.ParquetWriter(path, head.schema, use_dictionary=dictionary) as writer:
        for table in itertools.chain([head], tables):
            writer.write_table(table, row_group_size=table.num_rows)


def repeat(folder: str, repeats: int) -> str:
    """The same files under `repeats` names each, as hard links in a folder of their own."""
    if repeats == 1:
        return folder
    target = f"{folder}-x{repeats}"
    if os.path.isdir(target):
        return target
    making = target + ".making"
    shutil.rmtree(making, ignore_errors=True)
    os.makedirs(making)
    for name in sorted(os.listdir(folder)):
        for number in range(repeats):
            os.link(os.path.join(folder, name), os.path.join(making, f"{number:03d}-{name}"))
    os.rename(making, target)
    return target
