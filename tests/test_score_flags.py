"""The flags of `jobs/score.py` that say what is written -> options."""

from __future__ import annotations

import sys

import pytest

from batchinfer.errors import InputError
from batchinfer.options import HookOptions, OutputOptions
from jobs import score

NEEDED = ["score.py", "--bundle", "b", "--input", "i", "--output", "/o"]


@pytest.fixture
def read(monkeypatch):
    def call(*flags):
        monkeypatch.setattr(sys, "argv", [*NEEDED, *flags])
        return score.read()

    return call


OUTPUTS = [
    ([], OutputOptions()),
    (["--output-columns", "b, a"], OutputOptions(("b", "a"))),
    (["--top-k", "y=5,z=1", "--argmax", "y"], OutputOptions((), {"y": 5, "z": 1}, ("y",))),
    (["--argmax", "y", "--compression", "zstd"], OutputOptions((), {}, ("y",), {}, "zstd")),
    (
        ["--top-k", "y=5", "--argmax", "z", "--labels", "a.txt"],
        OutputOptions((), {"y": 5}, ("z",), {"y": "a.txt", "z": "a.txt"}),
    ),
    (
        ["--argmax", "y,z", "--labels", "y=a.txt,z=b.txt"],
        OutputOptions((), {}, ("y", "z"), {"y": "a.txt", "z": "b.txt"}),
    ),
    (  # a partition's folder is no output
        ["--argmax", "y", "--labels", "s3://lake/day=1/a.txt"],
        OutputOptions((), {}, ("y",), {"y": "s3://lake/day=1/a.txt"}),
    ),
]


@pytest.mark.parametrize("flags, expected", OUTPUTS, ids=lambda value: str(value)[:40])
def test_what_is_written(read, flags, expected):
    assert score._outputs(read(*flags)) == expected


WRONG = [
    (["--labels", "a.txt"], "--labels a.txt: expected --top-k or --argmax with it, found none"),
    (["--top-k", "y"], "--top-k expects NAME=VALUE once per name; found 'y'"),
    (["--top-k", "y=few"], "--top-k y: expected a number; found 'few'"),
    (["--top-k", "y=-1"], "--top-k y: expected a number; found '-1'"),
    (["--top-k", "y=0"], "top_k y: expected 1 or more; found 0"),
]


@pytest.mark.parametrize("flags, words", WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_what_cannot_be_meant_is_refused(read, flags, words):
    with pytest.raises(InputError) as error:
        score._outputs(read(*flags))
    assert str(error.value) == words


def test_hooks(read):
    assert score._hooks(read()) == HookOptions()
    flags = ["--preprocess", "m:f", "--preprocess-columns", "a,b", "--postprocess", "m:g"]
    found = score._hooks(read(*flags, "--postprocess-outputs", "y"))
    assert found == HookOptions("m:f", ("a", "b"), "m:g", ("y",))
