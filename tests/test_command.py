"""Flags, the file that may hold them, and how a command ends: by real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from batchinfer.errors import InputError
from jobs.command import Parser, pairs, words

ROOT = str(Path(__file__).resolve().parent.parent)


def parser():
    made = Parser(prog="cook")
    made.add_argument("source")
    made.add_argument("--to", required=True)
    made.add_argument("--batch-rows", type=int, default=256)
    made.add_argument("--timeout-s", type=float)
    made.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    made.add_argument("--map", action="append", metavar="INPUT=COLUMN,...")
    made.add_argument("--keep", metavar="COLUMN,...")
    made.add_argument("--force", action="store_true", default=False)
    made.set_defaults(storage_options={})
    return made


@pytest.fixture
def config(tmp_path):
    """Write a file of this text; gives the flags that name it."""

    def write(text):
        (tmp_path / "c.yaml").write_text(text)
        return ["--config", str(tmp_path / "c.yaml")]

    return write


def read(*argv):
    values = vars(parser().read(list(argv)))
    values.pop("config")
    return values


DEFAULTS = {
    "source": "a", "to": "b", "batch_rows": 256, "timeout_s": None, "device": "cpu", "map": None,
    "keep": None, "force": False, "storage_options": {},
}  # fmt: skip


def test_flags_alone():
    assert read("a", "--to", "b") == DEFAULTS
    assert read("a", "--to", "b", "--batch-rows", "7", "--force") == {
        **DEFAULTS, "batch_rows": 7, "force": True,
    }  # fmt: skip


def test_every_flag_can_stand_in_the_file_with_dashes_or_underscores(config):
    text = """
    source: a
    to: b
    batch-rows: 7
    timeout_s: 5
    device: gpu
    map: {x: pixels}
    keep: [id, name]
    force: true
    storage_options: {endpoint_url: "http://localhost"}
    """
    assert read(*config(text)) == {
        "source": "a", "to": "b", "batch_rows": 7, "timeout_s": 5.0, "device": "gpu",
        "map": {"x": "pixels"}, "keep": ["id", "name"], "force": True,
        "storage_options": {"endpoint_url": "http://localhost"},
    }  # fmt: skip


def test_flags_win_over_the_file(config):
    file = config("{source: a, to: b, batch_rows: 7, device: gpu, map: [x=1, y=2], keep: id}")
    found = read(*file, "z", "--batch-rows", "8", "--device", "cpu", "--map", "x=3", "--keep", "k")
    assert (found["source"], found["batch_rows"], found["device"]) == ("z", 8, "cpu")
    assert (found["to"], found["map"], found["keep"]) == ("b", ["x=3"], "k")


def test_numbers_where_text_is_expected_become_text(config):
    assert read(*config("{source: 2024, to: 2024-01-31}"))["to"] == "2024-01-31"
    assert read(*config("{source: 2024, to: b}"))["source"] == "2024"


def test_a_key_without_a_value_is_as_good_as_none(config):
    assert read(*config("{source: a, to: b, batch_rows: , map: }")) == DEFAULTS
    assert read("a", "--to", "b", *config("# nothing")) == DEFAULTS


def test_what_is_required_is_all_named(config):
    with pytest.raises(InputError, match="expected SOURCE, --to "):
        read()
    with pytest.raises(InputError, match="expected --to "):
        read(*config("{source: a, to: }"))


BAD = [
    ("unknown keys", "{too: 1, batchrows: 2, to: b}", "unknown key(s) batchrows, too; known: "),
    ("the file in itself", "{config: x}", "unknown key(s) config"),
    ("no mapping", "[a, b]", "expected `flag: value` lines, found ['a', 'b']"),
    ("no YAML", "a: [", "cannot read --config"),
    ("Python in YAML", "to: !!python/object/apply:os.getcwd []", "cannot read --config"),
    ("a word for a switch", "force: 'no'", "force: expected true or false; found 'no'"),
    ("a number for a switch", "force: 1", "force: expected true or false; found 1"),
    ("a switch for a value", "to: yes", "to: expected one value; found True"),
    ("a list for a number", "batch_rows: [1]", "batch_rows: expected one value; found [1]"),
    ("a wrong choice", "device: tpu", "device: expected one of cpu, gpu; found 'tpu'"),
]


@pytest.mark.parametrize("text, message", [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_file_that_makes_no_sense_is_refused(config, text, message):
    with pytest.raises(InputError) as error:
        read("a", "--to", "b", *config(text))
    assert message in str(error.value)


def test_a_file_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=r"cannot read --config none\.yaml"):
        read("a", "--to", "b", "--config", "none.yaml")


@pytest.mark.parametrize("rows", ["many", "1.5"])
def test_a_number_of_the_file_is_as_strict_as_the_flag(config, rows, capsys):
    for argv in (config(f"batch_rows: {rows}"), ["--batch-rows", rows]):
        with pytest.raises(SystemExit) as end:
            read("a", "--to", "b", *argv)
        assert end.value.code == 2
        assert f"argument --batch-rows: invalid int value: '{rows}'" in capsys.readouterr().err


def test_flags_are_not_abbreviated(capsys):
    with pytest.raises(SystemExit):
        read("a", "--to", "b", "--batch", "7")
    assert "unrecognized arguments: --batch 7" in capsys.readouterr().err


def test_help_tells_defaults_and_exit_statuses(config, capsys):
    with pytest.raises(SystemExit) as end:
        read("--help", *config("batch_rows: 7"))
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "75 stopped for now (the same command continues)" in text


PAIRS = [
    (None, {}),
    ([], {}),
    ("x=a", {"x": "a"}),
    ("x=a,y=b", {"x": "a", "y": "b"}),
    (["x=a,y=b", "z=c"], {"x": "a", "y": "b", "z": "c"}),
    (["x=a=b"], {"x": "a=b"}),
    ({"x": "a", "y": 5}, {"x": "a", "y": "5"}),
]


@pytest.mark.parametrize("given, expected", PAIRS, ids=lambda value: repr(value))
def test_pairs(given, expected):
    assert pairs(given, "--map") == expected


@pytest.mark.parametrize(
    "given, found",
    [("x", "x"), ("=a", "=a"), ("x=", "x="), ("x=a,x=b", "x=b"), (["y", "x=a"], "y")],
)
def test_what_is_no_pair_or_comes_twice_is_refused(given, found):
    with pytest.raises(
        InputError, match=f"--map expects NAME=VALUE once per name; found '{found}'"
    ):
        pairs(given, "--map")


WORDS = [
    (None, []),
    ("", []),
    ("a", ["a"]),
    ("a,b,", ["a", "b"]),
    ("a, b", ["a", "b"]),
    (["a,b", "c"], ["a,b", "c"]),  # a YAML list can hold names with commas
    (("a", 5), ["a", "5"]),
]


@pytest.mark.parametrize("given, expected", WORDS, ids=lambda value: repr(value))
def test_words(given, expected):
    assert words(given) == expected


# How a command ends -----------------------------------------------------------------------

SCRIPT = """
import sys
from batchinfer import errors
from jobs.command import Parser, run
def read():
    parser = Parser()
    parser.add_argument("--must", required=False)
    return parser.read()
def call(flags):
    print("said on the way", file=sys.stderr)
    {body}
run(read, call)
raise AssertionError("run() ends the process")
"""


def command(body, *argv):
    """Exit status, lines of stdout, and stderr of a process whose call has this body."""
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body), *argv],
        cwd=ROOT, capture_output=True, timeout=60,
    )  # fmt: skip
    return found.returncode, found.stdout.decode().splitlines(), found.stderr.decode()


@pytest.mark.parametrize("status", [0, 1, 75])
def test_the_result_is_one_json_line_and_its_exit_status(status):
    code, lines, said = command(f'return {{"rows": 5, "exit_status": {status}, "text_ü": None}}')
    assert (code, said) == (status, "said on the way\n")
    assert [json.loads(line) for line in lines] == [{"rows": 5, "text_ü": None}]


def test_without_a_status_it_is_0():
    assert command("return {}")[:2] == (0, ["{}"])


def test_a_text_is_printed_as_it_is():
    assert command('return {"text": "two\\nlines", "rows": 5}')[:2] == (0, ["two", "lines"])


ENDS = [
    ("raise errors.InputError('bad input')", 2, "InputError: bad input"),
    ("raise errors.SchemaError('bad column')", 2, "SchemaError: bad column"),
    ("raise errors.StorageError('forbidden')", 2, "StorageError: forbidden"),
    ("raise errors.CommitError('not ours')", 1, "CommitError: not ours"),
    ("raise errors.ShardError('torn')", 1, "ShardError: torn"),
    ("raise errors.TransientStorageError('503')", 75, "TransientStorageError: 503"),
    ("raise errors.LeaseLostError('taken')", 75, "LeaseLostError: taken"),
    ("raise KeyboardInterrupt", 75, "interrupted; the same command continues"),
    ("raise ValueError('a bug')", 1, "ValueError: a bug"),
    ("return {'rows': object()}", 1, "is not JSON serializable"),
    ("sys.exit(3)", 3, ""),
    ("sys.exit('words')", 1, ""),
]


@pytest.mark.parametrize("body, status, words", ENDS, ids=[e[0] for e in ENDS])
def test_an_error_is_a_status_and_words_on_stderr_only(body, status, words):
    code, lines, said = command(body)
    assert (code, lines) == (status, [])
    assert words in said
    assert ("Traceback" in said) == (status == 1 and "errors." not in body and "exit" not in body)


def test_nothing_runs_after_the_status_is_known():
    body = "import atexit; atexit.register(print, 'late'); return {}"
    assert command(body)[:2] == (0, ["{}"])


def test_a_wrong_flag_is_2_and_help_is_0():
    code, lines, said = command("return {}", "--wrong")
    assert (code, lines) == (2, [])
    assert "unrecognized arguments: --wrong" in said
    code, lines, said = command("return {}", "--help")
    assert (code, said) == (0, "")
    assert "exit status: 0 all done" in " ".join(lines)
