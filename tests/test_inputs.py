"""Folders, globs and names -> files with their footers, on a local disk and in memory."""

from __future__ import annotations

import io
import os
import time
import uuid

import pytest

from batchinfer.arrow import pa, pq
from batchinfer.errors import InputError
from batchinfer.input_files import check_files, read_footers
from batchinfer.inputs import list_inputs
from batchinfer.plan import RowGroup
from batchinfer.storage import open_store

NAMES = [
    "b/x.parquet",
    "b/deeper/still/y.parq",
    "a-1.parquet",
    "a-2.parquet",
    "a-10.parquet",
    "a[1].parquet",
    "c*?.pq",
    "day=1/x.parquet",
    "day=2/x.parquet",
    "day=2/hour=5/x.parquet",
    "space ü%20#.parquet",
    "_SUCCESS",
    "_temporary/half.parquet",
    "b/.hidden.parquet",
    "b/_metadata.parquet",
    ".git/x.parquet",
    "notes.txt",
    "parquet",
]
VISIBLE = [
    "a-1.parquet",
    "a-10.parquet",
    "a-2.parquet",
    "a[1].parquet",
    "b/deeper/still/y.parq",
    "b/x.parquet",
    "c*?.pq",
    "day=1/x.parquet",
    "day=2/hour=5/x.parquet",
    "day=2/x.parquet",
    "space ü%20#.parquet",
]


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path):
    """The URL of a folder in which every file of NAMES lies."""
    url = str(tmp_path / "in") if request.param == "local" else f"memory://{uuid.uuid4().hex}/in"
    for name in NAMES:
        put(f"{url}/{name}", b"never opened")
    return url


def put(url, data):
    store, path = open_store(url)
    store.put(path, data)


def names(root, *urls):
    found = [store.url(info.path) for store, info in list_inputs(urls)]
    assert all(name.startswith(root + "/") for name in found)
    return [name[len(root) + 1 :] for name in found]


def test_a_folder_gives_all_visible_parquet_below_it_sorted(root):
    assert names(root, root) == VISIBLE
    assert names(root, root + "/") == VISIBLE


def test_urls_are_taken_in_the_order_given(root):
    assert names(root, root + "/day=2", root + "/a-2.parquet", root + "/b") == [
        "day=2/hour=5/x.parquet",
        "day=2/x.parquet",
        "a-2.parquet",
        "b/deeper/still/y.parq",
        "b/x.parquet",
    ]


GLOBS = [
    ("a-*.parquet", ["a-1.parquet", "a-10.parquet", "a-2.parquet"]),
    ("*.parquet", [name for name in VISIBLE if "/" not in name and name.endswith(".parquet")]),
    ("a-?.parquet", ["a-1.parquet", "a-2.parquet"]),
    ("a-[2-9].parquet", ["a-2.parquet"]),
    ("a-[!1].parquet", ["a-2.parquet"]),
    ("a-[^1].parquet", ["a-2.parquet"]),
    ("a-[^].parquet", None),
    ("[!]*", None),
    ("day=?/x.parquet", ["day=1/x.parquet", "day=2/x.parquet"]),
    ("day=*", ["day=1/x.parquet", "day=2/hour=5/x.parquet", "day=2/x.parquet"]),
    ("**/x.parquet", [name for name in VISIBLE if name.endswith("/x.parquet")]),
    ("b/**", ["b/deeper/still/y.parq", "b/x.parquet"]),
    ("*.pq", ["c*?.pq"]),
    ("d[a]y=[1]", ["day=1/x.parquet"]),
    # A class never crosses folders, and what stands in one is literal.
    ("b[!a]x.parquet", None),
    ("a[[]1].parquet", ["a[1].parquet"]),
    ("space*[#].parquet", ["space ü%20#.parquet"]),
    # Hidden names are not matched by a glob either, as in a shell.
    ("*/.hidden.parquet", None),
    ("*/half.parquet", None),
    ("z*", None),
]  # fmt: skip


@pytest.mark.parametrize("pattern, expected", GLOBS, ids=[g[0] for g in GLOBS])
def test_a_glob_matches_files_and_whole_folders(root, pattern, expected):
    if expected is None:
        with pytest.raises(InputError, match="no Parquet file under"):
            list_inputs([f"{root}/{pattern}"])
    else:
        assert names(root, f"{root}/{pattern}") == expected


@pytest.mark.parametrize("name", ["a[1].parquet", "c*?.pq", "space ü%20#.parquet"])
def test_a_name_that_exists_is_itself_whatever_it_would_match_as_a_glob(root, name):
    assert names(root, f"{root}/{name}") == [name]


def test_a_folder_whose_name_is_a_glob_is_itself(root):
    put(f"{root}/run[1]/x.parquet", b"never opened")
    put(f"{root}/run1/x.parquet", b"never opened")
    assert names(root, f"{root}/run[1]") == ["run[1]/x.parquet"]


@pytest.mark.parametrize("name", ["notes.txt", "parquet", "_temporary/half.parquet"])
def test_a_file_that_is_named_is_taken_whatever_it_is_called(root, name):
    assert names(root, f"{root}/{name}") == [name]


def test_a_hidden_folder_that_is_named_is_taken(root):
    assert names(root, f"{root}/_temporary") == ["_temporary/half.parquet"]


@pytest.mark.parametrize(
    "given",
    [("a-1.parquet", "a-1.parquet"), ("a-*.parquet", "a-2.parquet"), ("b", "b/deeper")],
    ids=["a file", "a file and a glob", "a folder and one in it"],
)
def test_a_file_named_twice_is_refused_and_shown(root, given):
    with pytest.raises(InputError, match=r"1 input file\(s\) are named twice .*such as .*/"):
        list_inputs([f"{root}/{name}" for name in given])


def test_all_files_named_twice_are_counted(root):
    with pytest.raises(InputError, match=r"3 input file\(s\) are named twice.*a-1\.parquet"):
        list_inputs([f"{root}/a-*.parquet", f"{root}/a-*.parquet"])


def test_thousands_of_files_named_twice_are_said_at_once(tmp_path):
    for number in range(5000):
        (tmp_path / f"{number}.parquet").touch()
    started = time.process_time()
    with pytest.raises(InputError, match=r"5000 input file\(s\) are named twice"):
        list_inputs([str(tmp_path), str(tmp_path)])
    assert time.process_time() - started < 2.0  # 4 s when each name was counted in the whole list


def test_each_url_must_give_something(root):
    with pytest.raises(InputError, match=f"no Parquet file under {root}/none"):
        list_inputs([root, f"{root}/none"])


def test_a_glob_that_makes_no_sense_is_refused(root):
    with pytest.raises(InputError, match=r"\[9-0\].*expected a glob; found bad character range"):
        list_inputs([f"{root}/a-[9-0].parquet"])


# Footers ------------------------------------------------------------------------------------


def parquet(table, **options):
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def footers(columns, *objects):
    """The records of objects of this content, as `read_footers` gives them."""
    url = f"memory://{uuid.uuid4().hex}"
    for number, data in enumerate(objects):
        put(f"{url}/{number}.parquet", data)
    return read_footers(list_inputs([url]), columns)


TABLE = pa.table({"id": list(range(50)), "x": [[1.0, 2.0]] * 50, "other": ["long " * 50] * 50})


def sizes(*columns):
    """Uncompressed bytes of these columns in each row group, as pyarrow tells them."""
    footer = pq.read_metadata(pa.BufferReader(parquet(TABLE, row_group_size=20)))
    leaf = {"id": 0, "x": 1, "other": 2}
    return [
        sum(footer.row_group(g).column(leaf[name]).total_uncompressed_size for name in columns)
        for g in range(3)
    ]


@pytest.mark.parametrize("columns", [("x",), ("id", "x"), ("other",), ()], ids=str)
def test_row_groups_come_with_their_rows_and_the_bytes_of_the_wanted_columns(columns):
    (found,) = footers(columns, parquet(TABLE, row_group_size=20))
    assert found.problem == ""
    assert found.row_groups == tuple(map(RowGroup, [20, 20, 10], sizes(*columns)))


def test_a_column_with_a_dot_in_its_name_has_its_size():
    table = pa.table({"a.b": list(range(10)), "a": list(range(10))})
    (found,) = footers(["a.b"], parquet(table))
    (both,) = footers(["a.b", "a"], parquet(table))
    assert 0 < found.row_groups[0].size_bytes < both.row_groups[0].size_bytes


def test_records_come_in_the_order_of_the_inputs():
    found = footers(["id"], *(parquet(TABLE.slice(0, n)) for n in range(1, 30)))
    rows = {os.path.basename(f.url): f.row_groups[0].num_rows for f in found}
    assert rows == {f"{n - 1}.parquet": n for n in range(1, 30)}


def test_a_file_without_rows_has_no_problem():
    (found,) = footers(["id"], parquet(TABLE.slice(0, 0)))
    assert (found.problem, sum(group.num_rows for group in found.row_groups)) == ("", 0)


GOOD = parquet(TABLE, row_group_size=20)
BROKEN = [
    ("nothing", b""),
    ("an error page", b"<html><body>403 Forbidden</body></html>"),
    ("cut short", GOOD[:-10]),
    ("another magic", GOOD[:-4] + b"PAR2"),
]


@pytest.mark.parametrize("data", [b[1] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_a_file_that_cannot_be_read_carries_its_problem_and_the_next_is_read(data):
    bad, good = footers(["id"], data, GOOD)
    assert bad.problem.startswith(f"not a readable Parquet file ({len(data)} bytes): ")
    assert "\n" not in bad.problem
    assert (bad.size, bad.row_groups) == (len(data), ())
    assert (good.problem, len(good.row_groups)) == ("", 3)


def test_no_damaged_byte_of_a_footer_stops_the_run_or_loses_rows_in_silence():
    bare = {"write_statistics": False, "store_schema": False}
    good = parquet(TABLE.select(["id", "x"]), row_group_size=20, **bare)
    start = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    damaged = [bytearray(good) for _ in range(start, len(good))]
    for offset, data in enumerate(damaged, start):
        data[offset] ^= 0x10
    for found in footers(["id", "x"], *map(bytes, damaged)):
        assert found.problem or sum(group.num_rows for group in found.row_groups) == 50


def test_what_the_check_says_of_a_schema_is_the_problem():
    def check(schema):
        return None if "x" in schema.names else f"found only {schema.names}"

    torn, bad, good = check_files(footers(["x"], b"torn", parquet(TABLE.drop(["x"])), GOOD), check)
    assert torn.problem.startswith("not a readable Parquet file")
    assert bad.problem == "found only ['id', 'other']"
    assert [group.num_rows for group in bad.row_groups] == [50]
    assert good.problem == ""


def test_files_of_one_schema_share_it_whatever_their_metadata():
    other = TABLE.replace_schema_metadata({"pandas": "other"})
    torn, one, two = footers(["x"], b"torn", parquet(TABLE), parquet(other))
    assert torn.schema is None
    assert one.schema is two.schema
    assert (one.schema, one.schema.metadata) == (TABLE.schema, None)


SCHEMAS = [
    pa.table({"x": [[1.0, 2.0]] * 3, "id": [1, 2, 3]}),
    pa.table({"x": [[1.0, 2.0]] * 3, "id": [1, 2, 3], "more": ["a"] * 3}),
    pa.table({"id": [1, 2, 3], "x": [[1.0, 2.0]] * 3}),
    # The same to Parquet; Arrow's own schema in the footer tells them apart.
    pa.table({"x": [[1.0, 2.0]] * 3, "id": pa.array([1, 2, 3], pa.duration("us"))}),
    pa.table({"x": [[1.0, 2.0]] * 3, "id": pa.array(["1", "2", "3"])}),
    pa.table({"x": [[1.0, 2.0]] * 3, "id": pa.array(["1", "2", "3"], pa.large_string())}),
    pa.table({"x": [[1.0, 2.0]] * 3, "id": pa.array(["1", "2", "3"]).dictionary_encode()}),
]


@pytest.mark.parametrize("step", [1, 3, 5], ids=["in turn", "mixed", "mixed otherwise"])
def test_each_of_many_schemas_is_told_from_the_others(step):
    tables = [SCHEMAS[number * step % len(SCHEMAS)] for number in range(60)]
    for table, file in zip(tables, read_footers(put_all(tables), ["x"])):
        assert file.schema == table.schema
        assert file.row_groups == footers(["x"], parquet(table))[0].row_groups


def test_of_more_files_than_one_turn_takes_each_has_its_own_record():
    tables = [TABLE.slice(0, 1 + number % 7) for number in range(200)]
    rows = [file.row_groups[0].num_rows for file in read_footers(put_all(tables), ["id"])]
    assert rows == [1 + number % 7 for number in range(200)]


def put_all(tables):
    url = f"memory://{uuid.uuid4().hex}"
    for number, table in enumerate(tables):
        put(f"{url}/{number:04d}.parquet", parquet(table))
    return list_inputs([url])


def test_a_check_is_asked_once_for_each_schema():
    asked = []

    def check(schema):
        asked.append(schema.names)

    files = read_footers(put_all([TABLE, TABLE, TABLE.drop(["x"]), TABLE]), ["id"])
    assert check_files(files, check) == files
    assert asked == [["id", "x", "other"], ["id", "other"]]


def test_a_file_that_vanishes_or_changes_after_the_listing_carries_its_problem():
    url = f"memory://{uuid.uuid4().hex}"
    for name in ("changed", "gone"):
        put(f"{url}/{name}.parquet", GOOD)
    inputs = list_inputs([url])
    put(f"{url}/changed.parquet", parquet(TABLE))
    store, path = open_store(f"{url}/gone.parquet")
    store.delete(path)
    changed, gone = read_footers(inputs, ["id"])
    assert "changed after it was planned" in changed.problem
    assert "nothing lies there" in gone.problem


@pytest.mark.parametrize("url", ["/da*a/x.parquet", "memory://b*cket/x.parquet"])
def test_a_glob_needs_a_folder_before_its_first_wildcard(url):
    with pytest.raises(InputError, match="before the first wildcard"):
        list_inputs([url])
