"""The user's choice of outputs against the model: which columns come of it, and what is refused."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from batchinfer.arrow import pa
from batchinfer.errors import InputError
from batchinfer.options import OutputOptions
from batchinfer.outputs import choose_outputs, output_type
from batchinfer.prediction_writer import to_arrow
from batchinfer.signature import Signature, TensorSpec

X = TensorSpec("x", "x:0", "float32", (None,))
SPECS = [
    ("best", "int64"), ("box", "float32", 2, 2), ("half", "float16", 3), ("name", "string", 3),
    ("open", "float32", None), ("y", "float32", 3), ("y_argmax", "int8"),
]  # fmt: skip
SIGNATURE = Signature(
    (X,), tuple(TensorSpec(n, f"{n}:0", kind, (None, *dims)) for n, kind, *dims in SPECS)
)
FILES = {"three": b"cat\ndog\nbird\n", "two": b"cat\ndog", "latin": b"caf\xe9\n"}


def choose(keep=(), **options):
    return choose_outputs(SIGNATURE, OutputOptions(**options), keep, FILES.__getitem__)


def written(outputs, arrays):
    """What is read back, by column."""
    found, schema = outputs.columns(arrays), outputs.schema
    assert list(found) == schema.names
    arrow = [to_arrow(array, schema.field(name).type) for name, array in found.items()]
    return pa.Table.from_arrays(arrays=arrow, schema=schema).to_pydict()


def test_without_a_choice_every_output_is_written_as_it_is():
    chosen = choose()
    assert chosen.schema.names == ["best", "box", "half", "name", "open", "y", "y_argmax"]
    assert (chosen.fetched, chosen.result_options) == (tuple(chosen.schema.names), {})


def test_the_named_outputs_are_written_in_this_order_and_only_they_are_fetched():
    chosen = choose(columns=("y", "best"))
    assert chosen.schema.names == ["y", "best"] == list(chosen.fetched)
    arrays = {"best": np.array([7]), "y": np.array([[1, 2, 3]], np.float32)}
    assert written(chosen, arrays) == {"y": [[1.0, 2.0, 3.0]], "best": [7]}


def test_an_output_of_which_the_best_are_written_is_not_written_whole():
    chosen = choose(top_k={"y": 2}, argmax=("half",))
    assert chosen.schema.names == [
        "best", "box", "name", "open", "y_argmax", "y_top2_index", "y_top2_value", "half_argmax",
    ]  # fmt: skip


def test_unless_it_is_named():
    chosen = choose(columns=("y",), top_k={"y": 2})
    assert (chosen.schema.names, chosen.fetched) == (["y", "y_top2_index", "y_top2_value"], ("y",))


def test_the_best_of_each_row_with_their_labels():
    chosen = choose(
        columns=("best",), top_k={"y": 2}, argmax=("y", "half"), labels={"y": "three"}
    )  # fmt: skip
    assert chosen.schema == pa.schema(
        [
            ("best", pa.int64()),
            ("y_top2_index", pa.list_(pa.int32(), 2)),
            ("y_top2_value", pa.list_(pa.float32(), 2)),
            ("y_top2_label", pa.list_(pa.string(), 2)),
            ("y_argmax", pa.int32()),
            ("y_label", pa.string()),
            ("half_argmax", pa.int32()),
        ]
    )
    assert chosen.fetched == ("best", "y", "half")
    arrays = {
        "best": np.array([4, 5]),
        "y": np.array([[0.5, 0.25, 0.75], [1, 1, 0]], np.float32),
        "half": np.array([[0, 9, 9], [np.nan, 1, 2]], np.float16),
    }
    assert written(chosen, arrays) == {
        "best": [4, 5],
        "y_top2_index": [[2, 0], [0, 1]],
        "y_top2_value": [[0.75, 0.5], [1.0, 1.0]],
        "y_top2_label": [["bird", "cat"], ["cat", "dog"]],
        "y_argmax": [2, 0],
        "y_label": ["bird", "cat"],
        "half_argmax": [1, 0],
    }


def test_a_nan_is_written_as_the_best_value():
    found = written(
        choose(columns=("best",), top_k={"half": 1}, labels={"half": "three"}),
        {"best": np.array([0]), "half": np.array([[1, np.nan, 2]], np.float16)},
    )
    assert (found["half_top1_index"], found["half_top1_label"]) == ([[1]], [["dog"]])
    assert np.isnan(found["half_top1_value"][0][0])


def test_a_batch_without_rows_has_the_columns():
    chosen = choose(columns=("best",), top_k={"y": 2}, argmax=("y",), labels={"y": "three"})
    arrays = {"best": np.zeros(0, np.int64), "y": np.zeros((0, 3), np.float32)}
    assert written(chosen, arrays) == {name: [] for name in chosen.schema.names}


def test_the_content_of_the_labels_is_part_of_the_result():
    chosen = choose(columns=("best",), argmax=("y",), labels={"y": "three"})
    digest = hashlib.sha256(b"cat\ndog\nbird\n").hexdigest()
    assert chosen.result_options == {"labels": {"y": digest}}


def test_a_choice_is_sent_to_other_processes_without_arrows_own_pickling():
    chosen = choose(columns=("best",), top_k={"y": 2}, argmax=("half",), labels={"y": "three"})
    sent = pickle.dumps(chosen)
    assert b"pyarrow" not in sent
    assert pickle.loads(sent) == chosen
    assert pickle.loads(sent).ranked[0].labels.to_pylist() == ["cat", "dog", "bird"]


LABELS = [
    ("a last line without an end", b"a\nb\nc", ["a", "b", "c"]),
    ("lines of Windows, a byte order mark", b"\xef\xbb\xbfa\r\nb\r\nc\r\n", ["a", "b", "c"]),
    ("an empty label", b"a\n\nc\n", ["a", "", "c"]),
    ("spaces stay", b"a \n b\n\n", ["a ", " b", ""]),
    ("no other ends of lines", "a\x0b\nb\u2028\nc".encode(), ["a\x0b", "b\u2028", "c"]),
]  # fmt: skip


@pytest.mark.parametrize("data, expected", [one[1:] for one in LABELS], ids=[o[0] for o in LABELS])
def test_labels_are_lines(data, expected):
    options = OutputOptions(argmax=("y",), labels={"y": "file"}, columns=("best",))
    chosen = choose_outputs(SIGNATURE, options, (), lambda file: data)
    assert chosen.ranked[0].labels.to_pylist() == expected


GIVES = (
    "the model gives  best: int64[?]; box: float32[?, 2, 2]; half: float16[?, 3]; "
    "name: string[?, 3]; open: float32[?, ?]; y: float32[?, 3]; y_argmax: int8[?]"
)


def refused(keep=(), **options):
    with pytest.raises(InputError) as error:
        choose(keep, **options)
    first, *problems, last = str(error.value).splitlines()
    assert (first, last) == ("the outputs that were asked for cannot be written:", GIVES)
    return [line.strip() for line in problems]


def test_everything_that_is_wrong_is_listed():
    found = refused(
        keep=("id", "y_top4_value", "best"),
        columns=("best", "z"),
        top_k={"y": 4, "box": 2, "open": 1, "w": 1},
        argmax=("name", "best"),
        labels={"y": "two", "half": "three"},
    )
    assert found == [
        "the model has no output 'z'",
        "the model has no output 'w'",
        "top_k y=4: the output has 3 values a row",
        "labels two: expected 3 lines, one per value of y; found 2",
        "box: float32[?, 2, 2]: expected one list of numbers a row, to find its best",
        "open: float32[?, ?]: the model leaves open how many values a row has; expected a fixed "
        "number",
        "name: string[?, 3]: expected one list of numbers a row, to find its best",
        "best: int64[?]: expected one list of numbers a row, to find its best",
        "labels three: expected top_k or argmax of half, found neither",
        "kept column 'y_top4_value' has the name of an output",
        "kept column 'best' has the name of an output",
    ]


def test_columns_that_come_twice_are_refused():
    assert refused(argmax=("y",)) == ["2 columns named 'y_argmax'"]
    assert choose(argmax=("y",), columns=("best",)).schema.names == ["best", "y_argmax"]


def test_a_kept_column_may_have_the_name_of_an_output_that_is_not_written():
    assert refused(keep=("best", "id")) == ["kept column 'best' has the name of an output"]
    assert choose(keep=("best", "id"), columns=("y",)).schema.names == ["y"]


def test_labels_that_are_no_text_are_refused():
    with pytest.raises(InputError, match=r"labels latin: expected UTF-8, a label per line: .*0xe9"):
        choose(argmax=("y",), labels={"y": "latin"})


TYPES = [
    ("float32", (), pa.float32()),
    ("float16", (), pa.float32()),  # Parquet has no float16
    ("float64", (), pa.float64()),
    ("bool", (), pa.bool_()),
    ("uint8", (), pa.uint8()),
    ("int64", (), pa.int64()),
    ("string", (), pa.binary()),
    ("float32", (3,), pa.list_(pa.float32(), 3)),
    ("int8", (2, 3), pa.list_(pa.list_(pa.int8(), 3), 2)),
    ("float16", (None,), pa.list_(pa.float32())),
    ("string", (2, None), pa.list_(pa.list_(pa.binary()), 2)),
]


@pytest.mark.parametrize("dtype, row_shape, expected", TYPES, ids=lambda value: str(value))
def test_an_output_becomes_a_value_or_a_list_per_dimension(dtype, row_shape, expected):
    assert output_type(TensorSpec("y", "y:0", dtype, (None, *row_shape))) == expected
