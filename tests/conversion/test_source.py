"""What lies at a path."""

from __future__ import annotations

import os

import pytest

from batchinfer.errors import InputError
from conversion.source import open_source
from conversion.tf_internals import SavedModel


@pytest.mark.parametrize(
    "name, kind, nodes",
    [
        ("rewrite_float32", "meta_graph", 107),
        ("tpu_float32", "tpu_saved_model", 87),
        ("both_float32", "saved_model", 97),  # the {serve} graph is taken first
        ("checkpoint", "checkpoint", 0),
    ],
)
def test_an_artifact_is_found_out_by_looking(artifacts, name, kind, nodes):
    source = open_source(getattr(artifacts, name))
    assert source.kind == kind
    assert os.path.exists(source.checkpoint + ".index")
    assert (source.meta_graph is None) == (nodes == 0)


def test_the_digest_follows_the_bytes_not_the_path(artifacts, tmp_path):
    with open(artifacts.rewrite_float32, "rb") as file:
        (tmp_path / "copy.meta").write_bytes(file.read())
    original = open_source(artifacts.rewrite_float32, artifacts.checkpoint)
    copy = open_source(str(tmp_path / "copy.meta"), artifacts.checkpoint)
    assert copy.digest() == original.digest()
    assert copy.digest() != open_source(artifacts.rewrite_bfloat16, artifacts.checkpoint).digest()


def test_what_is_no_artifact_is_refused_with_what_would_be(artifacts, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "bad.meta").write_bytes(b"\xff\xff\xff")
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("gone", "does not exist; expected a SavedModel folder"),
        ("notes.txt", "is not an artifact: expected a SavedModel folder"),
        ("bad.meta", "expected a binary MetaGraphDef"),
        ("empty", "holds no artifact"),
    ]:
        with pytest.raises(InputError) as error:
            open_source(str(tmp_path / name))
        assert message in str(error.value)


def test_a_folder_around_artifacts_names_them(artifacts):
    with pytest.raises(InputError) as error:
        open_source(artifacts.folder)
    assert "holds artifacts but is none; name one of them:" in str(error.value)
    assert artifacts.rewrite_float32 in str(error.value)
    assert f"convert.py {artifacts.folder} --model-fn PACKAGE.MODULE:model_fn" in str(error.value)


# The graph that serves without a TPU comes first, then the one with the fewest other tags.
@pytest.mark.parametrize(
    "tags, taken, kind",
    [
        (["train", "serve gpu", "serve tpu"], "serve gpu", "saved_model"),
        (["serve tpu", "serve gpu", "serve"], "serve", "saved_model"),
        (["eval", "serve tpu x"], "serve tpu x", "tpu_saved_model"),
        (["train", "eval tpu"], None, "expected a graph tagged `serve`; found train; eval, tpu"),
    ],
)
def test_of_several_graphs_one_that_serves_is_taken(tmp_path, tags, taken, kind):
    model = SavedModel()
    for words in tags:
        model.meta_graphs.add().meta_info_def.tags.extend(words.split())
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    if taken is None:
        with pytest.raises(InputError, match=kind):
            open_source(str(tmp_path))
    else:
        source = open_source(str(tmp_path))
        assert (list(source.meta_graph.meta_info_def.tags), source.kind) == (taken.split(), kind)
