"""A tiny bundle and tiny data whose predictions can be checked by eye."""

from __future__ import annotations

import os

import numpy as np

from batchinfer.arrow import pa, pq
from batchinfer.bundle import Bundle, write_bundle

WEIGHTS = np.array([[1, 10], [2, 20], [3, 30], [4, 40]], np.float32)
SIGNATURE = {
    "inputs": {"x": {"tensor": "x:0", "dtype": "float32", "shape": [None, 4]}},
    "outputs": {
        "best": {"tensor": "best:0", "dtype": "int64", "shape": [None]},
        "y": {"tensor": "y:0", "dtype": "float32", "shape": [None, 2]},
    },
}


def make_bundle(path: str, scale: float = 1.0, proven: bool = True) -> Bundle:
    """y = scale * x @ WEIGHTS, best = argmax(y); `scale` makes another model of it."""
    manifest = {"signature": SIGNATURE, "parity": {"passed": True} if proven else None}
    return write_bundle(path, manifest, lambda folder: _save(folder, scale))


def _save(folder: str, scale: float) -> None:
    from batchinfer.tf1 import tf

    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [None, 4], name="x")
        weights = tf.get_variable("w", initializer=WEIGHTS * np.float32(scale), use_resource=True)
        y = tf.matmul(x, weights, name="y")
        best = tf.argmax(y, axis=1, name="best")
        session.run(tf.global_variables_initializer())
        builder = tf.saved_model.builder.SavedModelBuilder(os.path.join(folder, "new"))
        signature = tf.saved_model.signature_def_utils.predict_signature_def(
            {"x": x}, {"y": y, "best": best}
        )
        builder.add_meta_graph_and_variables(
            session, [tf.saved_model.SERVING], {"serving_default": signature}
        )
        builder.save()
    for name in os.listdir(os.path.join(folder, "new")):
        os.rename(os.path.join(folder, "new", name), os.path.join(folder, name))
    os.rmdir(os.path.join(folder, "new"))


def features(ids: np.ndarray) -> np.ndarray:
    """The x of each id: float32 of shape (n, 4), small integers so that sums are exact."""
    return np.stack([ids % 7, ids % 11, ids % 13, ids % 17], axis=1).astype(np.float32)


def expected(ids: np.ndarray) -> np.ndarray:
    """The y of each id, computed without batchinfer."""
    return features(ids) @ WEIGHTS


def table(first: int, rows: int) -> pa.Table:
    """Rows with ids first, first + 1, ..."""
    ids = np.arange(first, first + rows)
    flat = pa.array(features(ids).reshape(-1))
    offsets = pa.array(np.arange(0, rows * 4 + 1, 4, dtype=np.int32))
    return pa.table(
        {
            "id": pa.array(ids),
            "name": [f"row {i}" for i in ids],
            "x": pa.ListArray.from_arrays(offsets, flat),
        }
    )


def make_data(folder: str, files: int, rows: int, row_group_rows: int = 1000) -> int:
    """`files` files of `rows` rows each; returns the rows of all."""
    os.makedirs(folder, exist_ok=True)
    for number in range(files):
        name = os.path.join(folder, f"data-{number:05d}.parquet")
        pq.write_table(table(number * rows, rows), name, row_group_size=row_group_rows)
    return files * rows
