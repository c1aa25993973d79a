"""The hook behind the model: what it declares, and what is written of it."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.arrow import pa
from batchinfer.errors import InputError, ShardError
from batchinfer.hooks import Hook
from batchinfer.options import OutputOptions
from batchinfer.outputs import choose_outputs
from batchinfer.postprocess import Postprocess, declared
from batchinfer.signature import Signature, TensorSpec

X = TensorSpec("x", "x:0", "float32", (None,))
Y = TensorSpec("y", "y:0", "float32", (None, 2))
Z = TensorSpec("z", "z:0", "float32", (None,))
SIGNATURE = Signature((X,), (Y, Z))
SUMS = """
def f(outputs):
    y = outputs["y"]
    return {"total": y.sum(axis=1), "name": np.array(["é%d" % v for v in y[:, 0]], object),
            "scores": y[:, ::-1] + 1}
f.returns = {"total": "float32[?]", "name": "text[?]", "scores": "float32[?, 2]"}
"""


@pytest.fixture
def hook(write_hook):
    return lambda text: Hook.find("--postprocess", f"{write_hook(text)[0]}:f")


def chosen(hook, takes=("y",), keep=(), **options):
    post = Postprocess(hook, takes, declared(hook))
    return choose_outputs(SIGNATURE, OutputOptions(**options), keep, lambda file: b"", post)


def test_what_it_returns_is_written_in_the_order_of_its_declaration(hook):
    found = chosen(hook(SUMS))
    assert found.schema == pa.schema(
        [
            ("total", pa.float32()),
            ("name", pa.string()),
            ("scores", pa.list_(pa.float32(), 2)),
        ]
    )
    assert found.fetched == ("y",)
    columns = found.columns({"y": np.array([[1, 2], [3, 4]], np.float32)})
    assert {name: array.tolist() for name, array in columns.items()} == {
        "total": [3.0, 7.0],
        "name": ["é1", "é3"],
        "scores": [[3.0, 2.0], [5.0, 4.0]],
    }


def test_the_flags_of_the_outputs_go_by_what_it_returns(hook):
    found = chosen(hook(SUMS), columns=("name",), argmax=("scores",))
    assert found.schema.names == ["name", "scores_argmax"]
    columns = found.columns({"y": np.array([[1, 2]], np.float32)})
    assert columns["scores_argmax"].tolist() == [0]


def test_it_is_part_of_the_result(hook):
    found = hook(SUMS)
    assert chosen(found).result_options == {
        "postprocess_sha256": found.sha256,
        "postprocess_returns": ["total: float32[?]", "name: text[?]", "scores: float32[?, 2]"],
    }


def test_everything_that_does_not_fit_is_listed(hook):
    found = hook(SUMS)
    with pytest.raises(InputError) as error:
        chosen(found, takes=("y", "w"), keep=("total",), top_k={"y": 1}, argmax=("name",))
    assert str(error.value).splitlines()[1:] == [
        "  postprocess_outputs: the model has no output 'w' (it has y, z)",
        f"  {found} has no output 'y'",
        "  name: text[?]: expected one list of numbers a row, to find its best",
        "  kept column 'total' has the name of an output",
        f"{found} gives  total: float32[?]; name: text[?]; scores: float32[?, 2]",
    ]


def test_another_result_than_declared_fails_the_shard(hook):
    found = chosen(hook(SUMS.replace("y.sum(axis=1)", "y.sum(axis=1, dtype=float)")))
    with pytest.raises(ShardError, match=r"'total': expected float32\[1\], found float64\[1\]"):
        found.columns({"y": np.array([[1, 2]], np.float32)})


DECLARED = [
    ("'float32[?]'", {"a": "a: float32[?]"}),
    ("' int8 [ ? , 2,3 ] '", {"a": "a: int8[?, 2, 3]"}),
    ("'string[?,?]'", {"a": "a: string[?, ?]"}),
    ("'text[?, 5]'", {"a": "a: text[?, 5]"}),
]


@pytest.mark.parametrize("text, expected", DECLARED)
def test_a_declaration_is_a_dtype_and_a_shape_with_the_rows_first(hook, text, expected):
    found = declared(hook(f"def f(outputs): pass\nf.returns = {{'a': {text}}}"))
    assert {spec.name: str(spec) for spec in found} == expected


@pytest.mark.parametrize("text", ["float32", "float32[2]", "float32[]", "float[?]", "bfloat16[?]"])
def test_what_is_no_declaration_is_refused(hook, text):
    with pytest.raises(InputError) as error:
        declared(hook(f"def f(outputs): pass\nf.returns = {{'a': {text!r}, 'b': 'int8[?]'}}"))
    assert str(error.value).endswith(f"found a: '{text}'")


def test_a_hook_without_a_declaration_is_told_the_line(hook):
    with pytest.raises(InputError, match=r"f\.returns = {\"label\": \"text\[\?\]\""):
        declared(hook("def f(outputs): pass"))
