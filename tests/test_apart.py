"""Input and output kept apart, through links of every kind."""

from __future__ import annotations

import os

import pytest

from batchinfer.apart import check_apart
from batchinfer.errors import InputError
from batchinfer.inputs import list_inputs
from batchinfer.options import ScoreOptions
from batchinfer.run_folder import RunFolder
from batchinfer.storage import open_store


@pytest.fixture
def root(tmp_path):
    """in/a.parquet, and an output with a part in it."""
    for name in ("in/a.parquet", "out/part-0.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"never opened")
    return tmp_path


def check(root, given="in", output="out"):
    options = ScoreOptions("bundle", (str(root / given),), str(root / output))
    check_apart(options, RunFolder(*open_store(options.output)), list_inputs(options.inputs))


def test_two_folders_of_their_own_are_apart(root):
    os.symlink("a.parquet", str(root / "in/b.parquet"))
    check(root)


def test_a_name_that_only_begins_like_the_output_is_apart(root):
    (root / "in").rename(root / "out-of-yesterday")
    check(root, "out-of-yesterday")


LINKS = {
    "a file that leads to a part": ("../out/part-0.parquet", "in/b.parquet"),
    "a folder that leads to the output": ("../out", "in/below"),
    "a file over a link": ("../two/part-0.parquet", "in/b.parquet"),
}


@pytest.mark.parametrize("target, name", LINKS.values(), ids=LINKS)
def test_a_link_among_the_inputs_that_leads_into_the_output_is_refused(root, target, name):
    os.symlink("out", str(root / "two"))
    os.symlink(target, str(root / name))
    with pytest.raises(InputError, match="lie inside each other"):
        check(root)


def test_an_output_that_is_a_link_is_the_folder_it_leads_to(root):
    os.symlink("out", str(root / "two"))
    with pytest.raises(InputError, match="lie inside each other"):
        check(root, "out/part-0.parquet", "two")


def test_the_same_path_in_two_stores_is_apart(root):
    options = ScoreOptions("bundle", (str(root / "out"),), "memory://" + str(root / "out"))
    check_apart(options, RunFolder(*open_store(options.output)), list_inputs(options.inputs))
