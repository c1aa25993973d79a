"""Which rows a model is blamed to refuse, by a model that refuses negative numbers."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.arrow import pa
from batchinfer.batch import Batch, Place
from batchinfer.errors import ShardError
from batchinfer.poison import Sieve, sound


class Refused(Exception):
    pass


class Model:
    """Gives x + 1.

    Attributes:
        sizes: rows of each run.
    """

    def __init__(self):
        self.sizes = []

    def score(self, feeds):
        self.sizes.append(len(feeds["x"]))
        if (feeds["x"] < 0).any():
            raise Refused("x must not be negative\nand a stack trace")
        return {"y": feeds["x"] + 1}


def batch(x):
    x = np.asarray(x, np.float32)
    return Batch({"x": x}, (pa.table({"x": x}),), len(x), (Place("a", 100, len(x)),))


def numbers(count, *poison):
    x = np.arange(count, dtype=np.float32)
    x[list(poison)] = -1
    return x


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def sieve(model):
    return Sieve(model.score, [Refused])


def test_a_batch_that_is_accepted_is_one_run(model, sieve):
    (part,) = sieve.parts(batch(numbers(100)))
    assert part.outputs["y"].tolist() == list(range(1, 101))
    assert (model.sizes, part.num_rows, part.reason) == ([100], 100, "")


@pytest.mark.parametrize("poison", [(0,), (63,), (17, 18), (0, 5, 31, 32, 63)])
def test_the_rows_at_fault_are_alone_and_all_others_scored_in_order(sieve, poison):
    x = numbers(64, *poison)
    parts = sieve.parts(batch(x))
    refused = [part for part in parts if part.outputs is None]
    assert [(part.url, part.row, part.num_rows) for part in refused] == [
        ("a", 100 + row, 1) for row in poison
    ]
    assert {part.reason for part in refused} == {
        "the model refuses it: Refused: x must not be negative"
    }
    scored = [part.outputs["y"] for part in parts if part.outputs is not None]
    assert np.concatenate(scored).tolist() == [n + 1 for n in x.tolist() if n >= 0]
    kept = pa.concat_tables([table for part in parts for table in part.kept])
    assert kept.column("x").to_pylist() == x.tolist()


def test_one_row_of_a_thousand_costs_two_runs_for_each_halving(model, sieve):
    sieve.parts(batch([1]))
    sieve.parts(batch(numbers(1024, 700)))
    assert len(model.sizes) == 1 + 1 + 2 * 10


def test_a_model_that_refuses_everything_costs_a_few_runs(model, sieve):
    with pytest.raises(ShardError, match=r"32 rows from all over a batch, .*: x must not be neg"):
        sieve.parts(batch(-np.ones(100_000)))
    assert len(model.sizes) == 33


def test_many_bad_rows_in_front_are_not_taken_for_all(sieve):
    parts = sieve.parts(batch(numbers(1000, *range(900))))
    assert sum(part.outputs is None for part in parts) == 900
    assert sum(part.num_rows for part in parts if part.outputs is not None) == 100


def test_a_batch_of_bad_rows_only_among_good_ones_is_rejected_row_by_row(sieve):
    sieve.parts(batch(numbers(10)))
    assert [part.outputs for part in sieve.parts(batch(-np.ones(40)))] == [None] * 40


def test_other_errors_are_not_the_rows(sieve):
    with pytest.raises(KeyError):
        sieve.parts(Batch({}, (), 2, (Place("a", 0, 2),)))


def test_a_sample_is_rows_that_the_model_accepts(model):
    assert sound(model.score, [Refused], batch(numbers(64, 3))).feeds["x"].tolist() == list(
        range(32, 64)
    )
    assert sound(model.score, [Refused], batch(-np.ones(1000))) is None
    assert len(model.sizes) == 3 + 32
    assert sound(model.score, [Refused], batch([-1])) is None
