"""The seam to TensorFlow: padding, batch sizes, threads, and what cannot be loaded."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from batchinfer.batch import pad
from batchinfer.bundle import Bundle, write_bundle
from batchinfer.errors import BundleError, InputError
from batchinfer.scorer import Scorer, choose_batch_rows
from batchinfer.signature import Signature, TensorSpec
from batchinfer.tf1 import tf
from tests.support import tiny


@pytest.fixture(scope="module")
def scorer(bundle):
    made = Scorer.restore(Bundle.open(bundle), batch_rows=8)
    yield made
    made.close()


def spec(name, *shape):
    return TensorSpec(name, f"{name}:0", "float32", shape)


def signature(*shape):
    return Signature((spec("x", *shape),), (spec("y", None),))


class EchoSession:
    """A session whose model gives back what `answer` makes of the fed arrays."""

    def __init__(self, answer):
        self.answer = answer
        self.fed = []

    def make_callable(self, fetches, feed_list):
        self.names = (fetches, feed_list)

        def run(*arrays):
            self.fed.append(arrays)
            return self.answer(*arrays)

        return run


# The real thing ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 7, 8])
def test_rows_come_back_one_for_one(scorer, rows):
    ids = np.arange(100, 100 + rows)
    found = scorer.score({"x": tiny.features(ids)})
    assert {name: array.shape for name, array in found.items()} == {"best": (rows,), "y": (rows, 2)}
    assert found["y"].tolist() == tiny.expected(ids).tolist()
    assert found["best"].tolist() == [1] * rows


def test_no_rows_are_refused(scorer):
    with pytest.raises(InputError, match="at least one row; found none"):
        scorer.score({"x": np.zeros((0, 4), np.float32)})


@pytest.mark.parametrize("rows", [9, 16, 31])
def test_more_rows_than_a_batch_come_back_one_for_one(scorer, rows):
    ids = np.arange(rows)
    found = scorer.score({"x": tiny.features(ids)})
    assert found["y"].tolist() == tiny.expected(ids).tolist()
    assert found["best"].shape == (rows,)


def test_several_threads_at_once_each_get_their_own_rows(scorer):
    def score(number):
        ids = np.arange(number * 8, number * 8 + 1 + number % 8)
        return ids, scorer.score({"x": tiny.features(ids)})["y"]

    with ThreadPoolExecutor(8) as pool:
        for ids, y in pool.map(score, range(400)):
            assert y.tolist() == tiny.expected(ids).tolist()


def test_only_the_outputs_that_are_wanted_are_fetched(bundle):
    ids = np.arange(3)
    made = Scorer.restore(Bundle.open(bundle), batch_rows=8, outputs=("y",))
    found = made.score({"x": tiny.features(ids)})
    made.close()
    assert {name: array.tolist() for name, array in found.items()} == {
        "y": tiny.expected(ids).tolist()
    }
    session = EchoSession(lambda x: [x])
    one = Signature.from_json(tiny.SIGNATURE).with_outputs(("y",))
    Scorer(session, one, 8)
    assert session.names[0] == ["y:0"]


def test_xla_is_switched_on_for_a_cpu_too_and_gives_the_same(bundle, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_clustering_debug=false")
    scorer = Scorer.restore(Bundle.open(bundle), batch_rows=8, xla=True)
    ids = np.arange(8)
    assert scorer.score({"x": tiny.features(ids)})["y"].tolist() == tiny.expected(ids).tolist()
    options = scorer._session._config.graph_options.optimizer_options
    assert options.global_jit_level == tf.OptimizerOptions.ON_2
    flags = os.environ["TF_XLA_FLAGS"].split()
    assert flags == ["--tf_xla_clustering_debug=false", "--tf_xla_cpu_global_jit"]
    scorer.close()


def test_two_models_in_one_process_do_not_mix(scorer, other_bundle):
    doubled = Scorer.restore(Bundle.open(other_bundle), batch_rows=4)
    x = tiny.features(np.arange(3))
    assert doubled.score({"x": x})["y"].tolist() == (2 * scorer.score({"x": x})["y"]).tolist()
    doubled.close()


def test_what_tensorflow_cannot_load_is_a_bundle_error(tmp_path):
    def fill(folder):
        with open(os.path.join(folder, "saved_model.pb"), "wb") as file:
            file.write(b"no graph")

    manifest = {"signature": tiny.SIGNATURE, "parity": None}
    broken = write_bundle(str(tmp_path / "broken"), manifest, fill)
    with pytest.raises(BundleError, match=r"TensorFlow .* cannot load bundle .*broken: "):
        Scorer.restore(broken)


@pytest.mark.parametrize("missing", ["inputs", "outputs"])
def test_a_tensor_that_the_graph_does_not_have_is_a_bundle_error(bundle, missing):
    manifest = dict(Bundle.open(bundle).manifest)
    fields = {"tensor": "elsewhere:0", "dtype": "float32", "shape": [None]}
    manifest["signature"] = {**tiny.SIGNATURE, missing: {"z": fields}}
    with pytest.raises(BundleError, match="elsewhere"):
        Scorer.restore(Bundle(bundle, manifest))


def test_every_tensor_of_another_dtype_in_the_graph_is_listed(bundle):
    manifest = dict(Bundle.open(bundle).manifest)
    other = {"best": {"dtype": "float64"}, "x": {"dtype": "float16"}, "y": {}}
    manifest["signature"] = {
        kind: {name: {**fields, **other[name]} for name, fields in specs.items()}
        for kind, specs in tiny.SIGNATURE.items()
    }
    words = (
        r"cannot load bundle .*: x \(x:0\) is float32, the signature says float16; "
        r"best \(best:0\) is int64, the signature says float64$"
    )
    with pytest.raises(BundleError, match=words):
        Scorer.restore(Bundle(bundle, manifest))


# Batches ----------------------------------------------------------------------------------


def test_a_short_batch_is_fed_whole_and_its_padding_never_comes_back():
    session = EchoSession(lambda x: [x.sum(axis=1)])
    scorer = Scorer(session, signature(None, 2), batch_rows=4)
    found = scorer.score({"x": np.array([[1, 2], [3, 4]], np.float32)})
    ((fed,),) = session.fed
    assert fed.tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert found["y"].tolist() == [3, 7]


@pytest.mark.parametrize(
    "padding, rows, expected",
    [
        ("none", 3, 3),
        ("batch", 3, 16),
        ("halves", 16, 16),
        ("halves", 9, 16),
        ("halves", 8, 8),
        ("halves", 5, 8),
        ("halves", 3, 4),
        ("halves", 1, 2),  # an eighth, and not less
    ],
)
def test_a_short_batch_is_padded_as_the_device_wants_it(padding, rows, expected):
    session = EchoSession(lambda x: [x + 1])
    scorer = Scorer(session, signature(None), 16, padding)
    found = scorer.score({"x": np.arange(rows, dtype=np.float32)})
    assert found["y"].tolist() == [n + 1 for n in range(rows)]
    assert [len(fed[0]) for fed in session.fed] == [expected]


def test_a_fixed_batch_is_always_whole():
    session = EchoSession(lambda x: [x])
    Scorer(session, signature(4), 4, "none").score({"x": np.zeros(1, np.float32)})
    assert [len(fed[0]) for fed in session.fed] == [4]


def exhausted_above(limit):
    def answer(x):
        if len(x) > limit:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return [x * 2]

    return EchoSession(answer)


def test_a_batch_that_the_device_has_no_memory_for_is_halved_for_good():
    session = exhausted_above(5)
    scorer = Scorer(session, signature(None), 16, "none")
    rows = np.arange(16, dtype=np.float32)
    assert scorer.score({"x": rows})["y"].tolist() == (rows * 2).tolist()
    assert (scorer.batch_rows, scorer.halved) == (4, 2)
    assert [len(fed[0]) for fed in session.fed] == [16, 8, 4, 4, 4, 4]


@pytest.mark.parametrize("fixed, batch", [(None, 1), (4, 4)], ids=["one row", "a fixed size"])
def test_a_batch_that_cannot_be_halved_fails(fixed, batch):
    scorer = Scorer(exhausted_above(0), signature(fixed), batch)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        scorer.score({"x": np.zeros(batch, np.float32)})


def test_a_batch_size_that_is_set_meanwhile_scores_no_row_twice():
    session = EchoSession(lambda x: [x * 2])
    scorer = Scorer(session, signature(None), 4, "none")
    rows = np.arange(16, dtype=np.float32)

    def answer(x):
        scorer.batch_rows = 100  # another shard of the actor measured it
        return [x * 2]

    session.answer = answer
    assert scorer.score({"x": rows})["y"].tolist() == (rows * 2).tolist()
    assert [len(fed[0]) for fed in session.fed] == [4, 12]


def test_parts_of_a_batch_that_differ_in_shape_are_refused():
    def answer(x):
        if len(x) > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return [np.zeros((len(x), int(x.max()) + 1), np.float32)]  # as wide as its longest row

    both = Signature((spec("x", None),), (spec("y", None, None),))
    scorer = Scorer(EchoSession(answer), both, 4, "none")
    with pytest.raises(
        InputError, match=r"y has rows of shapes \[\(2,\), \(4,\)\].*--batch-rows to 2"
    ):
        scorer.score({"x": np.arange(4, dtype=np.float32)})


def test_an_output_of_another_width_than_the_signature_says_is_refused():
    wide = Signature((spec("x", None),), (spec("y", None, 5),))
    scorer = Scorer(EchoSession(lambda x: [np.zeros((4, 7))]), wide, batch_rows=4)
    with pytest.raises(InputError, match=r"gave shape \(4, 7\) .* \[4, 5\]"):
        scorer.score({"x": np.zeros(4, np.float32)})


def test_inputs_are_fed_in_the_order_of_the_signature():
    session = EchoSession(lambda a, b: [a - b])
    both = Signature((spec("a", None), spec("b", None)), (spec("y", None),))
    scorer = Scorer(session, both, batch_rows=2)
    assert session.names == (["y:0"], ["a:0", "b:0"])
    assert scorer.score({"b": np.array([1.0, 2.0]), "a": np.array([5.0, 5.0])})["y"].tolist() == [
        4,
        3,
    ]


@pytest.mark.parametrize(
    "answer",
    [np.zeros(3), np.zeros(5), np.zeros(1), np.float32(0.5), np.zeros((0, 4))],
    ids=["too few", "too many", "a mean", "a scalar", "none"],
)
def test_an_output_that_is_not_one_row_per_row_is_refused(answer):
    scorer = Scorer(EchoSession(lambda x: [answer]), signature(None), batch_rows=4)
    with pytest.raises(InputError, match=r"output y: float32\[\?\] gave .* for a batch of 4"):
        scorer.score({"x": np.zeros(4, np.float32)})


ROWS = [
    ("left open", None, None, 256),
    ("wanted", None, 7, 7),
    ("fixed", 32, None, 32),
    ("fixed and wanted", 32, 32, 32),
]


@pytest.mark.parametrize("fixed, wanted, expected", [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_the_batch_is_the_graphs_own_or_what_is_wanted(fixed, wanted, expected):
    assert choose_batch_rows(signature(fixed), wanted) == expected


@pytest.mark.parametrize(
    "fixed, wanted, words",
    [
        (32, 16, "only runs with batches of 32 rows; found batch_rows 16"),
        (32, 64, "only runs with batches of 32 rows; found batch_rows 64"),
        (None, 0, "batch_rows must be at least 1; found 0"),
        (32, -1, "batch_rows must be at least 1; found -1"),
    ],
)
def test_another_batch_is_refused(fixed, wanted, words):
    with pytest.raises(InputError, match=words):
        choose_batch_rows(signature(fixed), wanted)


@pytest.mark.parametrize("rows, expected", [(8, None), (7, InputError)])
def test_a_graph_of_a_fixed_batch_is_scored_padded_to_it(bundle, rows, expected):
    manifest = dict(Bundle.open(bundle).manifest)
    fixed = {"tensor": "x:0", "dtype": "float32", "shape": [8, 4]}
    manifest["signature"] = {**tiny.SIGNATURE, "inputs": {"x": fixed}}
    if expected:
        with pytest.raises(expected, match="batches of 8 rows"):
            Scorer.restore(Bundle(bundle, manifest), batch_rows=rows)
        return
    scorer = Scorer.restore(Bundle(bundle, manifest))
    ids = np.arange(3)
    assert (scorer.batch_rows, len(pad(ids, 8))) == (8, 8)
    assert scorer.score({"x": tiny.features(ids)})["y"].tolist() == tiny.expected(ids).tolist()
    scorer.close()
