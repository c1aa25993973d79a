"""Whole runs, actors on threads: which outputs are written, the best of them, and their labels."""

from __future__ import annotations

import pytest

from batchinfer.arrow import pq
from batchinfer.errors import InputError, ObjectNotFoundError, OutputConflictError
from batchinfer.options import OutputOptions
from tests.runs.support import IDS, lose_actor_when
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

Y = tiny.expected(IDS)


@pytest.fixture
def labels(tmp_path):
    (tmp_path / "labels.txt").write_text("small\nlarge\n")
    return {"y": str(tmp_path / "labels.txt")}


def test_the_best_are_written_with_their_labels_and_nothing_else(score, labels, tmp_path):
    report = score(outputs=OutputOptions(("best",), {"y": 1}, ("y",), labels))
    assert report["exit_status"] == 0
    table = check.read_parts(str(tmp_path / "out"))
    assert table.column_names == [
        "id", "best", "y_top1_index", "y_top1_value", "y_top1_label", "y_argmax", "y_label",
    ]  # fmt: skip
    assert table.column("id").to_pylist() == IDS.tolist()
    indices = Y.argmax(axis=1).tolist()
    texts = [("small", "large")[i] for i in indices]
    assert table.column("y_argmax").to_pylist() == table.column("best").to_pylist() == indices
    assert table.column("y_top1_index").to_pylist() == [[i] for i in indices]
    assert table.column("y_top1_value").to_pylist() == Y.max(axis=1, keepdims=True).tolist()
    assert table.column("y_label").to_pylist() == texts
    assert table.column("y_top1_label").to_pylist() == [[text] for text in texts]


def test_outputs_that_are_not_named_are_not_fetched(score, tmp_path):
    fetched = []

    def plant(engine):
        engine.after = lambda actor, shard: fetched.append(actor._scorer.signature.outputs)

    score(ThreadBackend(plant), outputs=OutputOptions(("y",)))
    assert {tuple(spec.name for spec in outputs) for outputs in fetched} == {("y",)}
    table = check.read_parts(str(tmp_path / "out"))
    assert table.column_names == ["id", "y"]
    assert table.column("y").to_pylist() == Y.tolist()


OTHERS = [
    ("fewer", OutputOptions(top_k={"y": 1}), "top_k"),
    ("none", OutputOptions(), "labels"),
    ("more", OutputOptions(("best",), {"y": 2}), "output_columns"),
]


@pytest.mark.parametrize("other, words", [o[1:] for o in OTHERS], ids=[o[0] for o in OTHERS])
def test_another_choice_on_the_same_output_is_refused(score, labels, tmp_path, other, words):
    score(outputs=OutputOptions(top_k={"y": 2}, labels=labels))
    with pytest.raises(OutputConflictError, match=f"{words}: the output has "):
        score(outputs=other)


def test_the_same_choice_continues_and_changed_labels_are_refused(score, labels, tmp_path):
    chosen = OutputOptions(argmax=("y",), labels=labels)
    score(outputs=chosen)
    assert score(outputs=chosen)["shards_done_before"] == 10
    (tmp_path / "labels.txt").write_text("small\nhuge\n")
    with pytest.raises(OutputConflictError, match="labels: the output has "):
        score(outputs=chosen)


def test_what_is_wrong_with_the_choice_is_told_before_anything_is_written(score, labels, tmp_path):
    backend = ThreadBackend()
    with pytest.raises(InputError) as error:
        score(backend, keep=("y",), outputs=OutputOptions(("y", "z"), {"y": 3}, labels=labels))
    assert str(error.value).splitlines() == [
        "the outputs that were asked for cannot be written:",
        "  the model has no output 'z'",
        "  top_k y=3: the output has 2 values a row",
        "  kept column 'y' has the name of an output",
        "the model gives  best: int64[?]; y: float32[?, 2]",
    ]
    assert backend.engine is None
    assert not (tmp_path / "out").exists()


def test_labels_that_are_not_there_are_one_message(score, tmp_path):
    with pytest.raises(ObjectNotFoundError, match=r"none\.txt"):
        score(outputs=OutputOptions(argmax=("y",), labels={"y": str(tmp_path / "none.txt")}))
    assert not (tmp_path / "out").exists()


def test_a_run_goes_on_with_another_compression(score, tmp_path):
    score(ThreadBackend(lose_actor_when(3, 99, "before")))
    before = check.snapshot(str(tmp_path / "out"))
    assert len(before) == 9
    report = score(outputs=OutputOptions(compression="zstd"))
    assert (report["shards_scored"], report["exit_status"]) == (1, 0)
    after = check.snapshot(str(tmp_path / "out"))
    (new,) = set(after) - set(before)
    codecs = {
        name: pq.read_metadata(str(tmp_path / "out" / name)).row_group(0).column(0).compression
        for name in after
    }
    assert codecs == {**dict.fromkeys(before, "SNAPPY"), new: "ZSTD"}
    check.assert_exact(str(tmp_path / "out"), IDS, Y)
