"""Whole runs, actors on threads: a function in front of the model, and one behind it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from batchinfer.arrow import pq
from batchinfer.bundle import write_bundle
from batchinfer.errors import InputError, OutputConflictError, SchemaError
from batchinfer.options import HookOptions, OutputOptions
from tests.runs.support import IDS
from tests.support import check, tiny
from tests.support.threads import ThreadBackend

BEFORE = """
from batchinfer.hooks import BadRows

def from_id(batch):
    ids = batch.column(batch.schema.get_field_index("id")).to_numpy()
    if (ids == 42).any():
        raise BadRows({int(np.flatnonzero(ids == 42)[0]): "not this one"})
    return {"x": np.stack([ids % 7, ids % 11, ids % 13, ids % 17], axis=1).astype(np.float32)}
"""
BEHIND = """
def shares(outputs):
    y = outputs["y"]
    share = y / (y.sum(axis=1, keepdims=True) + 1)
    return {"share": share, "words": y[:, 0].astype(int).astype(str)}

shares.returns = {"share": "float32[?, 2]", "words": "text[?]"}
"""


@pytest.fixture
def before(write_hook):
    return f"{write_hook(BEFORE)[0]}:from_id"


@pytest.fixture
def behind(write_hook):
    return f"{write_hook(BEHIND)[0]}:shares"


def test_a_hook_in_front_makes_the_inputs_and_may_reject_rows(score, data, before, tmp_path):
    for number in range(10):  # without a column for the model's own input
        name = str(tmp_path / "data" / f"data-{number:05d}.parquet")
        pq.write_table(tiny.table(number * 300, 300).drop(["x"]), name)
    report = score(hooks=HookOptions(before, ("id",)), keep=("id", "name"))
    assert (report["rows_out"], report["rows_rejected"], report["exit_status"]) == (2999, 1, 0)
    rest = np.delete(IDS, 42)
    check.assert_exact(str(tmp_path / "out"), rest, tiny.expected(rest))
    (name,) = os.listdir(str(tmp_path / "out/_batchinfer/rejects"))
    rejects = pq.ParquetFile(str(tmp_path / "out/_batchinfer/rejects" / name)).read().to_pydict()
    del rejects["_file"]
    assert rejects == {"_row": [42], "_reason": ["not this one"], "id": [42], "name": ["row 42"]}


def test_a_hook_behind_gives_the_columns(score, behind, tmp_path):
    report = score(
        hooks=HookOptions(postprocess=behind, postprocess_outputs=("y",)),
        outputs=OutputOptions(columns=("words",), argmax=("share",)),
    )
    assert report["exit_status"] == 0
    table = check.read_parts(str(tmp_path / "out"))
    y = tiny.expected(IDS)
    assert table.to_pydict() == {
        "id": IDS.tolist(),
        "words": [str(int(one)) for one in y[:, 0]],
        "share_argmax": y.argmax(axis=1).tolist(),
    }


def test_the_batches_never_change_what_hooks_write(score, before, behind, tmp_path):
    hooks = HookOptions(before, ("id",), behind)
    for rows in (7, 1000):
        score(hooks=hooks, batch_rows=rows, output=str(tmp_path / f"by{rows}"))
    names = sorted(check.snapshot(str(tmp_path / "by7")))
    for name in names:
        assert (tmp_path / "by7" / name).read_bytes() == (tmp_path / "by1000" / name).read_bytes()
    assert names == sorted(check.snapshot(str(tmp_path / "by1000")))


OPEN = {
    "inputs": {
        "words": {"tensor": "words:0", "dtype": "string", "shape": [None, None]},
    },
    "outputs": {"y": {"tensor": "y:0", "dtype": "string", "shape": [None]}},
}
WORDS = """
def words(batch):
    names = batch.column(0).to_pylist()
    return {"words": np.array([name.split() for name in names])}
"""


def make_open_bundle(path):
    """y = the words of a row, joined; the model leaves open how many a row has."""

    def save(folder):
        from batchinfer.tf1 import tf

        with tf.Graph().as_default(), tf.Session() as session:
            words = tf.placeholder(tf.string, [None, None], name="words")
            y = tf.strings.reduce_join(words, axis=1, separator="-")
            y = tf.identity(y, name="y")
            tf.saved_model.simple_save(session, f"{folder}/new", {"words": words}, {"y": y})
        for name in os.listdir(f"{folder}/new"):
            os.rename(f"{folder}/new/{name}", f"{folder}/{name}")
        os.rmdir(f"{folder}/new")

    return write_bundle(path, {"signature": OPEN, "parity": {"passed": True}}, save).path


def test_a_hook_can_feed_what_the_model_leaves_open(score, write_hook, tmp_path):
    bundle = make_open_bundle(str(tmp_path / "open"))
    with pytest.raises(SchemaError, match="open: expected a fixed one, or --preprocess"):
        score(bundle=bundle, columns={"words": "name"})
    hooks = HookOptions(f"{write_hook(WORDS)[0]}:words")
    assert score(bundle=bundle, columns={"words": "name"}, hooks=hooks)["exit_status"] == 0
    found = check.read_parts(str(tmp_path / "out")).column("y").to_pylist()
    assert found == [b"row-%d" % number for number in IDS]


def test_a_changed_hook_is_refused_on_the_same_output(score, write_hook, tmp_path):
    name, _ = write_hook(BEHIND)
    hooks = HookOptions(postprocess=f"{name}:shares")
    score(hooks=hooks)
    assert score(hooks=hooks)["shards_done_before"] == 10
    write_hook(BEHIND.replace("+ 1", "+ 2"), name)
    with pytest.raises(OutputConflictError, match="postprocess_sha256: the output has "):
        score(hooks=hooks)
    with pytest.raises(OutputConflictError, match=r"postprocess: the output has .* command null"):
        score()


RAISES = """
def fail(batch):
    if batch.column(0)[0].as_py() >= 600:
        raise LookupError("no such day")
    return {"x": np.zeros((len(batch), 4), np.float32)}
"""


def test_a_hook_that_raises_costs_its_shards_and_names_its_line(score, write_hook, data, tmp_path):
    name, path = write_hook(RAISES)
    report = score(hooks=HookOptions(f"{name}:fail", ("id",)), inputs=(data + "/data-0000[0-2]*",))
    assert (report["exit_status"], report["rows_out"], report["rows_missing"]) == (1, 600, 300)
    (given_up,) = json.loads((tmp_path / "out/_batchinfer/quarantine.json").read_text())["shards"]
    assert given_up["errors"][0] == (
        f"--preprocess {name}:fail raised LookupError: no such day at {path}:5 in fail: "
        'raise LookupError("no such day")'
    )


def test_what_a_hook_returns_wrongly_is_one_clear_error(score, write_hook, tmp_path):
    name, _ = write_hook("def f(batch): return {'x': np.zeros((len(batch), 4)), 'z': 1}")
    report = score(hooks=HookOptions(f"{name}:f", ("id",)))
    assert report["exit_status"] == 1
    assert report["quarantined"][0]["errors"][0] == (
        f"--preprocess {name}:f returned for 600 rows: unknown 'z', expected x; 'x': expected "
        "float32[600, 4], found float64[600, 4]"
    )


def test_hooks_are_looked_at_before_anything_is_written(score, before, behind, tmp_path):
    wrong = [
        (HookOptions("nowhere:f"), InputError, "no module nowhere"),
        (HookOptions(before, ("id", "day")), SchemaError, f"'day' for --preprocess {before}"),
        (HookOptions(postprocess=before), InputError, "expected a line behind the function"),
        (HookOptions(postprocess=behind, postprocess_outputs=("w",)), InputError, "no output 'w'"),
    ]  # fmt: skip
    for hooks, error, words in wrong:
        backend = ThreadBackend()
        with pytest.raises(error, match=words):
            score(backend, hooks=hooks)
        assert backend.engine is None
        assert not (tmp_path / "out").exists()


def test_a_worker_with_another_source_says_so_and_scores_nothing(score, write_hook, tmp_path):
    name, _ = write_hook(BEHIND)

    def plant(engine):
        write_hook(BEHIND + "# of another node", name)

    with pytest.raises(InputError, match="is another one than the driver's"):
        score(ThreadBackend(plant), hooks=HookOptions(postprocess=f"{name}:shares"))
    assert not check.snapshot(str(tmp_path / "out"))
