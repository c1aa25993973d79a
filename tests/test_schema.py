"""The user's choice of columns against model and file; everything wrong is said at once."""

from __future__ import annotations

import pytest

from batchinfer.arrow import pa
from batchinfer.errors import SchemaError
from batchinfer.schema import Columns, choose_columns
from batchinfer.signature import Signature, TensorSpec

IMAGE = TensorSpec("image", "image:0", "float32", (None, 4))
SIZE = TensorSpec("size", "size:0", "int32", (None,))
SCORE = TensorSpec("score", "score:0", "float32", (None, 2))
SIGNATURE = Signature((IMAGE, SIZE), (SCORE,))
FILE = pa.schema(
    [
        ("id", pa.int64()),
        ("image", pa.list_(pa.float32())),
        ("size", pa.int16()),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("a.b", pa.int32()),
    ]
)


def choose(columns=None, keep=(), schema=FILE, signature=SIGNATURE):
    return choose_columns(signature, columns or {}, keep, [("in/a.parquet", schema)])


def test_inputs_take_the_columns_of_their_names():
    assert choose().by_input == {"image": "image", "size": "size"}


def test_a_column_can_be_named_for_an_input():
    chosen = choose({"size": "a.b"})
    assert chosen.by_input == {"image": "image", "size": "a.b"}
    assert chosen.names == ["image", "a.b"]


def test_each_column_is_read_once_and_only_those_that_are_needed():
    assert choose({"size": "id"}, keep=["id", "image"]).names == ["image", "id"]


def test_the_output_has_the_kept_columns_in_order_then_the_outputs():
    assert choose(keep=["size", "id"]).output_schema == pa.schema(
        [("size", pa.int16()), ("id", pa.int64()), ("score", pa.list_(pa.float32(), 2))]
    )


def test_a_kept_dictionary_is_written_as_its_values():
    assert choose(keep=["label"]).kept == pa.schema([("label", pa.string())])


def test_everything_that_does_not_fit_is_listed():
    schema = pa.schema([("image", pa.string()), ("score", pa.int8())])
    with pytest.raises(SchemaError) as error:
        choose({"pixels": "p", "z": "q"}, keep=["score", "key"], schema=schema)
    assert str(error.value).splitlines() == [
        "in/a.parquet: the data does not fit the model:",
        "  the model has no input 'pixels' (it has image, size)",
        "  the model has no input 'z' (it has image, size)",
        "  column 'image' is string: expected numbers for image: float32[?, 4]",
        "  no column 'size' for input size: int32[?]",
        "  no column 'key' to keep",
        "the model takes  image: float32[?, 4]; size: int32[?]",
        "the file has     image: string, score: int8",
        "Name a column for an input with --map INPUT=COLUMN, kept columns with --keep.",
    ]


def test_kept_columns_may_not_have_the_names_that_tell_why_a_row_was_rejected():
    schema = pa.schema([*FILE, ("_row", pa.int64())])
    with pytest.raises(SchemaError, match="kept column '_row' has the name of a column of the"):
        choose(keep=["_row"], schema=schema)


TWICE = pa.schema([*FILE, ("image", pa.list_(pa.float32())), ("id", pa.int64())])


def test_a_column_that_the_file_has_twice_is_refused():
    with pytest.raises(SchemaError) as error:
        choose(keep=["id"], schema=TWICE)
    lines = str(error.value).splitlines()
    assert lines[1:3] == ["  2 columns named 'image'", "  2 columns named 'id'"]


def test_columns_that_are_not_read_may_come_twice():
    schema = pa.schema([*FILE, ("label", pa.string())])
    assert choose(schema=schema).problem(schema) is None


# Further files against the choice ---------------------------------------------------------

CHOSEN = choose(keep=["id", "label"])


def without(name):
    return pa.schema([field for field in FILE if field.name != name])


def retyped(name, kind):
    return pa.schema([pa.field(f.name, kind) if f.name == name else f for f in FILE])


FITTING = [
    ("itself", FILE),
    ("other order", pa.schema(list(reversed(list(FILE))))),
    ("more columns", pa.schema([*FILE, ("more", pa.int8())])),
    ("a dictionary become plain", retyped("label", pa.string())),
    ("another key type, which is a matter of all files", retyped("id", pa.string())),
    ("another feed type", retyped("size", pa.int8())),
    ("a fixed-size list", retyped("image", pa.list_(pa.float64(), 4))),
    ("not nullable", pa.schema([pa.field(f.name, f.type, nullable=False) for f in FILE])),
]


@pytest.mark.parametrize("schema", [f[1] for f in FITTING], ids=[f[0] for f in FITTING])
def test_a_file_that_fits(schema):
    assert CHOSEN.problem(schema) is None


MISFITS = [
    ("no feed", without("image"), "no column 'image' for input image: float32[?, 4]"),
    ("no key", without("id"), "no column 'id' to keep"),
    (
        "another feed",
        retyped("size", pa.float32()),
        "column 'size' is float: cannot turn float into int32 without losing values",
    ),
    ("twice", TWICE, "2 columns named 'image'; 2 columns named 'id'"),
    (
        "two things",
        without("id").remove(0),
        "no column 'image' for input image: float32[?, 4]; no column 'id' to keep",
    ),
]


@pytest.mark.parametrize("schema, words", [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS])
def test_a_file_that_does_not_fit(schema, words):
    assert CHOSEN.problem(schema) == words


# Several files ----------------------------------------------------------------------------


def choose_among(*schemas, keep=("id",)):
    files = [(f"in/{number}.parquet", schema) for number, schema in enumerate(schemas)]
    return choose_columns(SIGNATURE, {}, keep, files)


def test_files_that_do_not_fit_have_no_say_unless_none_fits():
    text = retyped("id", pa.string())
    strangers = [text.remove(text.get_field_index("size"))] * 30
    assert choose_among(*strangers, FILE).kept == pa.schema([("id", pa.int64())])
    with pytest.raises(SchemaError, match=r"in/0\.parquet: the data does not fit(.|\n)*'size'"):
        choose_among(*strangers)


def test_a_kept_column_has_the_type_that_holds_the_values_of_all_files():
    narrow, none = retyped("id", pa.int8()), retyped("id", pa.null())
    for schemas in [(none, narrow, FILE), (FILE, narrow, none)]:
        assert choose_among(*schemas).kept == pa.schema([("id", pa.int64())])


def test_kept_columns_that_no_type_holds_are_refused_with_the_files_of_each():
    text = pa.schema([*without("id"), ("id", pa.string())])
    dated = pa.schema([*without("label"), ("label", pa.date32())])
    with pytest.raises(SchemaError) as error:
        choose_among(FILE, FILE, text, dated, keep=["id", "label", "size"])
    assert str(error.value).splitlines() == [
        "files keep columns of types that no one type holds without losing values:",
        "  'id' is int64 in 3 file(s), such as in/0.parquet",
        "  'id' is string in 1 file(s), such as in/2.parquet",
        "  'label' is string in 3 file(s), such as in/0.parquet",
        "  'label' is date32[day] in 1 file(s), such as in/3.parquet",
        "Write the files anew with one type, leave the column out of --keep, or score the files "
        "of each type into an --output of their own.",
    ]


def test_a_choice_is_complete_without_kept_columns():
    assert (
        Columns(SIGNATURE, {"image": "image", "size": "size"}, pa.schema([])).problem(FILE) is None
    )
