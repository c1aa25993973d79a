"""Names in the output folder, and the record of whose run it is."""

from __future__ import annotations

import json
import uuid

import pytest

from batchinfer.arrow import pa
from batchinfer.errors import OutputConflictError
from batchinfer.plan import Segment, Shard
from batchinfer.run_folder import (
    RunFolder,
    check_same_run,
    kept_columns,
    part_name,
    plan_name,
    rejects_name,
    run_record,
    to_json,
    visible,
)
from batchinfer.storage import open_store
from tests.support.folders import new_folder, plan_of

KEPT = pa.schema([("id", pa.int64())])
FINGERPRINT = "0123456789abcdef" * 4
SHARD = Shard(7, (Segment("memory://in/a.parquet", 100, "v1", 0, 1, 0, 10),))
OPTIONS = {"columns": {"x": "pixels"}, "keep": ["id"], "shard_bytes": None}


def test_names_tell_index_unit_and_run():
    unit = SHARD.unit[:8]
    assert part_name(SHARD, FINGERPRINT) == f"part-0000007-{unit}-01234567.parquet"
    assert rejects_name(SHARD, FINGERPRINT) == (
        f"_batchinfer/rejects/rejects-0000007-{unit}-01234567.parquet"
    )
    assert plan_name(FINGERPRINT) == "_batchinfer/plan-0123456789abcdef.parquet"


def test_parts_sort_as_the_rows_of_the_input_stand():
    names = [part_name(Shard(i, SHARD.segments), FINGERPRINT) for i in (0, 9, 10, 99, 100, 9999999)]
    assert names == sorted(names)


def test_readers_see_what_does_not_begin_with_an_underscore_or_a_dot():
    names = ["a", "_SUCCESS", ".crc", "_batchinfer/x", "b/_c/d", "b/.d", "b/c_d", "b/c"]
    assert visible(names) == ["a", "b/c_d", "b/c"]


def test_a_json_object_has_one_spelling():
    assert to_json({"b": [1, None], "a": {"d": "ü", "c": 0.5}}) == (
        b'{\n "a": {\n  "c": 0.5,\n  "d": "\\u00fc"\n },\n "b": [\n  1,\n  null\n ]\n}\n'
    )


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_objects_are_listed_by_their_name_in_the_folder(kind, tmp_path):
    url = str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}"
    folder = RunFolder(*open_store(f"{url}/out/"))
    assert (folder.url, folder.list()) == (f"{url}/out", {})
    folder.put_json("_batchinfer/run.json", {"a": 1})
    assert folder.create_json("part-1", {})
    assert list(folder.list()) == ["_batchinfer/run.json", "part-1"]
    assert folder.list()["part-1"].size == len(to_json({}))


def test_a_json_object_comes_back_or_is_not_there():
    folder = new_folder()
    assert folder.read_json("a.json") is None
    folder.put_json("a.json", {"a": 1})
    assert folder.read_json("a.json") == {"a": 1}


@pytest.mark.parametrize("data", [b"", b'{"a":', b"[1]", b"\xff"], ids=repr)
def test_what_is_no_json_object_is_refused(data):
    folder = new_folder()
    folder.store.put(folder.at("run.json"), data)
    with pytest.raises(OutputConflictError, match=r"out/run\.json was changed"):
        folder.read_json("run.json")


def test_a_created_object_is_never_replaced_and_a_put_one_is():
    folder = new_folder()
    assert folder.create_json("a.json", {"a": 1})
    assert not folder.create_json("a.json", {"a": 2})
    assert folder.read_json("a.json") == {"a": 1}
    folder.put_json("a.json", {"a": 3})
    assert folder.read_json("a.json") == {"a": 3}


# Fingerprint ------------------------------------------------------------------------------


def fingerprint(bundle="bundle", plan=(10, 20), options=OPTIONS, kept=KEPT):
    return run_record(bundle, plan_of(*plan), options, kept)["fingerprint"]


def test_the_fingerprint_is_always_the_same_for_the_same_run():
    # A literal: another value would refuse every output that exists.
    record = run_record("bundle", plan_of(10), {"keep": ["id"]}, KEPT)
    assert isinstance(record.pop("kept_schema"), str)
    assert record == {
        "format_version": 1,
        "bundle_digest": "bundle",
        "plan_digest": "bc81b37013d65c5a85708b9f5a523e8e8beb9ba5efd1d5df1e5f7f2d0817eb7d",
        "options": {"keep": ["id"]},
        "kept": ["id: int64"],
        "fingerprint": "8fe286a56af20a14fda013eeb837a1e29be355948d969474e97d13fdefec2ba9",
    }


@pytest.mark.parametrize(
    "change",
    [
        {"bundle": "other"},
        {"plan": (10, 21)},
        {"options": {**OPTIONS, "keep": []}},
        {"options": {**OPTIONS, "keep": ["id", "name"]}},
        {"options": {**OPTIONS, "columns": {}}},
        {"options": {**OPTIONS, "shard_bytes": 1}},
        {"options": {**OPTIONS, "new": None}},
        {"kept": pa.schema([("id", pa.int32())])},
    ],
    ids=[
        "bundle",
        "plan",
        "keep less",
        "keep more",
        "columns",
        "shard_bytes",
        "a new option",
        "a kept type",
    ],
)
def test_each_part_changes_the_fingerprint(change):
    assert fingerprint(**change) != fingerprint()


def test_the_order_of_keys_does_not_change_the_fingerprint():
    assert fingerprint(options=dict(reversed(list(OPTIONS.items())))) == fingerprint()


def test_the_order_of_kept_columns_does():
    assert fingerprint(options={"keep": ["a", "b"]}) != fingerprint(options={"keep": ["b", "a"]})


# Whose run --------------------------------------------------------------------------------

RUN = run_record("bundle", plan_of(10), OPTIONS)


def test_the_same_bundle_and_options_are_the_same_run():
    check_same_run("out", RUN, "bundle", OPTIONS)


def test_every_difference_is_listed():
    found = {**RUN, "format_version": 0}
    with pytest.raises(OutputConflictError) as error:
        check_same_run("out", found, "other", {**OPTIONS, "keep": [], "shard_bytes": 5})
    assert str(error.value).splitlines() == [
        "out belongs to another run; 4 difference(s):",
        "  format_version: the output has 0, this command 1",
        "  bundle_digest: the output has bundle, this command other",
        '  keep: the output has ["id"], this command []',
        "  shard_bytes: the output has null, this command 5",
        "Use the same bundle and options to continue it, or another --output.",
    ]


def test_an_option_that_only_one_of_two_runs_has_is_a_difference():
    with pytest.raises(OutputConflictError, match='argmax: the output has null, this command "y"'):
        check_same_run("out", RUN, "bundle", {**OPTIONS, "argmax": "y"})
    found = run_record("bundle", plan_of(10), {**OPTIONS, "argmax": "y"})
    with pytest.raises(OutputConflictError, match='argmax: the output has "y", this command null'):
        check_same_run("out", found, "bundle", OPTIONS)


def test_the_kept_columns_of_a_run_come_back_exactly():
    item = pa.field("element", pa.timestamp("ns", "Europe/Berlin"), nullable=False)
    kept = pa.schema([("id", pa.uint8()), ("tags", pa.list_(item)), ("none", pa.null())])
    run = json.loads(to_json(run_record("bundle", plan_of(10), OPTIONS, kept)))
    assert run["kept"][0] == "id: uint8"
    assert kept_columns("out", run).equals(kept, check_metadata=True)
    assert kept_columns("out", json.loads(to_json(RUN))) == pa.schema([])


@pytest.mark.parametrize(
    "change",
    [{"kept_schema": None}, {"kept_schema": "?"}, {"kept_schema": "AAAA"}, {"kept": ["id: int8"]}],
    ids=str,
)
def test_kept_columns_that_were_changed_are_refused(change):
    run = {**run_record("bundle", plan_of(10), OPTIONS, KEPT), **change}
    with pytest.raises(OutputConflictError, match=r"out/_batchinfer/run\.json was changed"):
        kept_columns("out", run)
    with pytest.raises(OutputConflictError, match="kept_schema"):
        kept_columns("out", {})


def test_the_plan_of_a_run_comes_back():
    folder, plan = new_folder(), plan_of(10, 20)
    folder.store.create(folder.at(plan_name(plan.digest)), plan.to_parquet())
    assert folder.read_plan({"plan_digest": plan.digest}) == plan


def test_a_plan_that_is_gone_is_said():
    with pytest.raises(OutputConflictError, match=r"plan-0123456789abcdef\.parquet is missing"):
        new_folder().read_plan({"plan_digest": FINGERPRINT})


def test_a_plan_that_is_another_one_is_refused():
    folder, digest = new_folder(), plan_of(10).digest
    folder.store.create(folder.at(plan_name(digest)), plan_of(11).to_parquet())
    with pytest.raises(OutputConflictError, match="was changed; its digest does not agree"):
        folder.read_plan({"plan_digest": digest})


@pytest.mark.parametrize("data", [b"", b"PAR1 but not whole PAR1"], ids=["empty", "torn"])
def test_a_plan_that_cannot_be_read_is_refused(data):
    folder, digest = new_folder(), plan_of(10).digest
    folder.store.create(folder.at(plan_name(digest)), data)
    with pytest.raises(OutputConflictError, match="was changed"):
        folder.read_plan({"plan_digest": digest})
