"""Compares the predictions with the truth: python examples/01_digits/check.py

Needs nothing of batchinfer: the predictions are plain Parquet, and the expected ones come from
plain TensorFlow with the training checkpoint. Exit status 0: every row is there once, and right.
"""

from __future__ import annotations

import argparse
import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from digits import IMAGE_SHAPE
from predict import predict_without_tpu

ATOL = 1e-5  # of a probability; float32 in batches of another size differs by about 1e-6


def problems_with_ids(expected, found):
    """What keeps `found` from holding every expected id exactly once; an empty list if nothing."""
    ids, counts = np.unique(found, return_counts=True)
    cases = [
        ("missing", np.setdiff1d(expected, ids)),
        ("there more than once", ids[counts > 1]),
        ("not in the input", np.setdiff1d(ids, expected)),
    ]
    return [f"{len(these)} ids are {what}: {these[:5]}..." for what, these in cases if len(these)]


def compare(rows, predictions, reference):
    """Measure predictions against labels and reference; all three hold the same rows in order."""
    classes = predictions["classes"]
    difference = np.abs(predictions["probabilities"] - reference["probabilities"])
    return {
        "accuracy": float(np.mean(classes == rows["label"])),
        "max_absdiff": float(difference.max()),
        "classes_differ": int(np.sum(classes != reference["classes"])),
    }


def problems_with_values(found):
    """What in the result of `compare` is more than rounding; an empty list if nothing."""
    wrong = []
    if not found["max_absdiff"] <= ATOL:  # and not `>`: a NaN is wrong too
        wrong.append(
            f"max_absdiff of probabilities is {found['max_absdiff']:g}, over atol {ATOL:g}"
        )
    if found["classes_differ"]:
        wrong.append(f"{found['classes_differ']} classes are not those of the model without TPU")
    return wrong


def expected_predictions(model_dir, pixels):
    """Run each distinct image once, and give each row the result of its image."""
    distinct, which = np.unique(pixels, axis=0, return_inverse=True)
    outputs = predict_without_tpu(model_dir, distinct.reshape((-1,) + IMAGE_SHAPE))
    return {name: values[which] for name, values in outputs.items()}


def read(folder, columns):
    """The Parquet files of a folder as {column: array}, in order of id; a list is a row of 2-D."""
    table = pq.read_table(folder, columns=columns, use_threads=False)
    order = np.argsort(table["id"].to_numpy(), kind="stable")
    return {name: _as_array(table[name])[order] for name in columns}


def _as_array(column):
    if not isinstance(column.type, (pa.ListType, pa.FixedSizeListType)):
        return column.to_numpy()
    values = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return values.reshape(len(column), -1)


def check(root, folder):
    """Print what was found; return what is wrong, an empty list if nothing."""
    rows = read(os.path.join(root, "data"), ["id", "label", "pixels"])
    predictions = read(folder, ["id", "classes", "probabilities"])
    wrong = problems_with_ids(rows["id"], predictions["id"])
    print(f"rows                   {len(rows['id'])} in, {len(predictions['id'])} out")
    if wrong:
        return wrong
    reference = expected_predictions(os.path.join(root, "train"), rows["pixels"])
    found = compare(rows, predictions, reference)
    print(f"accuracy               {found['accuracy']:.4f} on held-out digits")
    print(
        f"against plain float32  max_absdiff {found['max_absdiff']:.2g} (atol {ATOL:g}), "
        f"{found['classes_differ']} classes differ"
    )
    return problems_with_values(found)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default="build/demo", help="where the demo's folders lie")
    parser.add_argument("--predictions", help="folder to check (default: DIR/predictions)")
    flags = parser.parse_args(argv)
    wrong = check(flags.dir, flags.predictions or os.path.join(flags.dir, "predictions"))
    for problem in wrong:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
