"""features.yaml: every form that is taken, and every mistake in one error."""

from __future__ import annotations

import pytest

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.code.features import (
    EXAMPLE,
    leaves,
    parse_features,
    placed,
    placeholder,
    read_features,
)


def written(folder, text):
    path = folder / "features.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "text, fields",
    [
        ("features: {x: 'float32[?, 28]'}", ["x: float32[?, 28]"]),
        ("x: float32[?, 28]\ny: string[?]", ["x: float32[?, 28]", "y: string[?]"]),  # no section
        ("x: {dtype: int32, shape: [null, 3]}", ["x: int32[?, 3]"]),
        ("x: {dtype: int64, shape: [8, -1], sparse: true}", ["x: sparse int64[8, ?]"]),
        ("features: float32[None, 4]", ["features: float32[?, 4]"]),  # a bare tensor
        ("float32[4, 4]", ["features: float32[4, 4]"]),
        ("features:\n- float32[?]\n- int32[?]", ["0: float32[?]", "1: int32[?]"]),
        ("features: {a: {b: 'bool[?]'}}\nlabels: int32[?]", ["a/b: bool[?]", "labels: int32[?]"]),
        ("dtype: string[?]\nshape: int64[?, 2]", ["dtype: string[?]", "shape: int64[?, 2]"]),
        ("x: sparse  double[ ? , ? ]", ["x: sparse float64[?, ?]"]),
        (EXAMPLE, ["image: float32[?, 28, 28, 1]", "ids: int32[?, 128]",
                   "tags: sparse int64[?, ?]", "label: int32[?]"]),
    ],
)  # fmt: skip
def test_a_tensor_is_said_as_inspect_prints_it_or_at_length(tmp_path, text, fields):
    declared = read_features(written(tmp_path, text))
    assert [str(field) for field in declared.fields] == fields


def test_bfloat16_is_declared_as_float32():
    (field,) = parse_features("bfloat16[?, 4]", "here").fields
    assert (field.dtype, field.rounded) == ("float32", True)


@pytest.mark.parametrize(
    "text, rows", [("x: float32[?, 4]", None), ("x: float32[8, 4]\ny: int32[8]", 8)]
)
def test_the_first_dimension_is_the_batch(tmp_path, text, rows):
    assert read_features(written(tmp_path, text)).batch_rows == rows


MISTAKES = {
    "x: float31[?]": ["x: no dtype float31"],
    "x: float32": ["x: expected a tensor such as float32[?, 28, 28, 1]; found 'float32'"],
    "x: float32[]": ["x: expected the batch as first dimension"],
    "x: float32[?, q]\ny: 3": ["x: no dimension 'q'", "y: expected a tensor", "2 mistake(s)"],
    "x: float32[?, 0]": ["x: no dimension '0'"],
    "x: float32[4]\ny: float32[8]": ["one batch size", "x: float32[4]; y: float32[8]"],
    "x: float32[4]\ny: float32[?]": ["one batch size"],
    "x: {dtype: int32}": ["x: expected shape: [null, 28]; found shape: None"],
    "x: {dtype: int32, shape: [null], sparse: 2}": ["x: expected sparse: true or false; found 2"],
    "features: {x: 'int32[?]'}\nlabels: {x: 'int32[?]'}": ["x: comes twice"],
    "features: int32[?]\nparams: int32[?]": ["params: expected only the sections"],
    "labels: int32[?]\nx: int32[?]": ["labels` stands beside no `features`"],
    "features: {x: float32[?, 4]}": ["is not YAML", 'quote a tensor: {image: "float32'],
    "{}": ["expected a tensor such as"],
    "": ["no feature at all"],
    "features:\nlabels: int32[?]": ["no feature at all"],
}


@pytest.mark.parametrize("text", MISTAKES)
def test_mistakes_are_one_error_with_an_example(tmp_path, text):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_features(path)
    assert [word for word in MISTAKES[text] if word not in str(caught.value)] == []
    assert path in str(caught.value) and "tags: sparse int64[?, ?]" in str(caught.value)


def test_a_file_is_asked_for():
    with pytest.raises(InputError, match="expected --features FILE"):
        read_features(None)
    with pytest.raises(InputError, match=r"cannot read --features gone\.yaml"):
        read_features("gone.yaml")


def test_placeholders_have_the_structure_and_take_no_name_of_a_variable():
    declared = parse_features({"w": "float32[?, 2]", "tag s": "sparse int64[?, ?]"}, "here")
    with tf.Graph().as_default():
        made = placed(declared.features, placeholder)
        assert tf.Variable(0.0, name="w").op.name == "w"
    assert made["w"].name == "batchinfer_inputs/w:0"
    assert made["w"].shape.as_list() == [None, 2]
    sparse = made["tag s"]
    assert (sparse.values.name, sparse.dtype.name) == ("batchinfer_inputs/tag_s/values:0", "int64")
    assert sparse.indices.shape.as_list() == [None, 2]
    assert [field.name for field in leaves(declared.features)] == ["w", "tag s"]
