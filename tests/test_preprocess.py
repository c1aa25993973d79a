"""The hook in front of the model: what it is given, and rows that it refuses."""

from __future__ import annotations

import pytest

from batchinfer.arrow import pa
from batchinfer.errors import ShardError
from batchinfer.hooks import Hook
from batchinfer.preprocess import Feeder, Preprocess
from batchinfer.signature import TensorSpec

WIDE = TensorSpec("x", "x:0", "int64", (None, None))
BATCH = pa.record_batch(
    [
        pa.array([1, 2, 3, 4]),
        pa.array(["a", "b", "a", "b"]).dictionary_encode(),
        pa.array([5, 6, 7, 8]),
    ],
    ["p", "q", "r"],
)


@pytest.fixture
def feeder(write_hook):
    def make(text, *columns):
        name, _ = write_hook(text)
        return Feeder(Preprocess(Hook.find("--preprocess", f"{name}:f"), columns), [WIDE])

    return make


def test_the_hook_is_given_its_columns_in_order_without_dictionaries(feeder):
    made = feeder(
        """
        def f(batch):
            assert batch.schema.names == ["q", "p"], batch.schema
            assert str(batch.schema.field("q").type) == "string"
            p = batch.column(1).to_numpy()
            return {"x": np.stack([p, p * 10], axis=1)}
        """,
        "q",
        "p",
    )
    feeds, bad = made.feeds(BATCH)
    assert (feeds["x"].tolist(), bad) == ([[1, 10], [2, 20], [3, 30], [4, 40]], {})


ODD = """
from batchinfer.hooks import BadRows
def f(batch):
    p = batch.column(0).to_numpy()
    wrong = {row: f"odd {p[row]}" for row in np.flatnonzero(p % 2)[:1]}
    if wrong:
        raise BadRows(wrong)
    return {"x": p.reshape(-1, 1)}
"""


def test_rows_that_the_hook_refuses_are_told_by_their_place_in_the_batch(feeder):
    made = feeder(ODD, "p")
    feeds, bad = made.feeds(BATCH)  # refused in two steps
    assert (feeds["x"].tolist(), bad) == ([[2], [4]], {0: "odd 1", 2: "odd 3"})
    assert made.feeds(BATCH.slice(0, 1)) == ({}, {0: "odd 1"})


@pytest.mark.parametrize("rows", ["{}", "{4: 'x'}", "{-1: 'x'}"])
def test_rows_that_are_not_there_cannot_be_refused(feeder, rows):
    made = feeder(
        f"""
        from batchinfer.hooks import BadRows
        def f(batch):
            raise BadRows({rows})
        """,
        "p",
    )
    with pytest.raises(ShardError, match="expected at least one from 0 to 3"):
        made.feeds(BATCH)


def test_an_open_dimension_has_one_size_in_all_batches(feeder):
    made = feeder("def f(batch): return {'x': np.ones((len(batch), len(batch)), np.int64)}", "p")
    made.feeds(BATCH)
    with pytest.raises(ShardError, match=r"rows of shape \[3\] for 'x', and of \[4\] before"):
        made.feeds(BATCH.slice(1))
