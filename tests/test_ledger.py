"""Records of committed shards, and a listing held against them."""

from __future__ import annotations

import pytest

from batchinfer.errors import OutputConflictError
from batchinfer.ledger import Ledger, ShardRecord, read_ledger, reconcile, success_record
from batchinfer.run_folder import part_name
from batchinfer.storage import ObjectInfo
from tests.support.folders import new_folder, plan_of

FINGERPRINT = "f" * 64
PLAN = plan_of(10, 20, 30)
NAMES = [part_name(shard, FINGERPRINT) for shard in PLAN.shards]


def record(shard, size=100, **fields):
    rows = PLAN.shards[shard].num_rows
    return ShardRecord(shard, NAMES[shard], size, rows, 0, **fields)


def segments(folder):
    return sorted(name for name in folder.list() if name.startswith("_batchinfer/ledger/"))


def test_records_come_back_as_they_were():
    folder = new_folder()
    ledger = Ledger(folder, epoch=1)
    first = ShardRecord(0, NAMES[0], 123, 9, 1, {"read": 0.5}, attempts=3, adopted=True)
    ledger.add(first)
    ledger.add(record(1))
    ledger.flush()
    assert read_ledger(folder, folder.list()) == {0: first, 1: record(1)}


def test_each_flush_makes_one_segment_of_what_is_new():
    folder = new_folder()
    ledger = Ledger(folder, epoch=3)
    for shard in range(3):
        ledger.add(record(shard))
        ledger.flush()
        ledger.flush()
    assert segments(folder) == [
        "_batchinfer/ledger/000003-000000.jsonl",
        "_batchinfer/ledger/000003-000001.jsonl",
        "_batchinfer/ledger/000003-000002.jsonl",
    ]
    assert sorted(read_ledger(folder, folder.list())) == [0, 1, 2]


def test_nothing_is_written_before_the_flush_and_nothing_for_nothing():
    folder = new_folder()
    ledger = Ledger(folder, epoch=1)
    ledger.flush()
    ledger.add(record(0))
    assert folder.list() == {}


def test_the_first_record_of_a_shard_counts():
    folder = new_folder()
    for epoch, size in [(2, 222), (1, 111)]:  # written in another order than their epochs
        ledger = Ledger(folder, epoch)
        ledger.add(record(0, size=size))
        ledger.flush()
    backwards = dict(reversed(list(folder.list().items())))
    assert read_ledger(folder, backwards)[0].size_bytes == 111


def test_only_segments_in_the_listing_are_read():
    folder = new_folder()
    folder.store.put(folder.at("_batchinfer/report.json"), b"not a segment")
    folder.store.put(folder.at("part-0"), b"not a segment")
    assert read_ledger(folder, folder.list()) == {}


# A listing against plan and ledger --------------------------------------------------------


def listing(*entries):
    return {name: ObjectInfo("out/" + name, size, "v1") for name, size in entries}


def hold(found, *records):
    return reconcile(
        new_folder(), PLAN, FINGERPRINT, found, {known.shard: known for known in records}
    )


def test_recorded_objects_are_done_and_unrecorded_ones_are_to_be_opened():
    found = listing((NAMES[0], 100), (NAMES[2], 7), ("_batchinfer/run.json", 1), ("_SUCCESS", 1))
    done, unrecorded = hold(found, record(0))
    assert done == {0: record(0)}
    assert unrecorded == [(2, found[NAMES[2]])]


def test_an_empty_folder_has_nothing_done():
    assert hold({}) == ({}, [])


def test_everything_that_contradicts_is_listed_and_nothing_changed():
    found = listing((NAMES[1], 99), ("theirs.parquet", 5), ("sub/x.parquet", 5))
    with pytest.raises(OutputConflictError) as error:
        hold(found, record(0), record(1), record(2))
    lines = str(error.value).splitlines()
    assert "is not as this run left it; 4 problem(s):" in lines[0]
    assert lines[1:-1] == [
        "  not of this run  theirs.parquet",
        "  not of this run  sub/x.parquet",
        f"  missing          {NAMES[0]} (the ledger says it was committed)",
        f"  missing          {NAMES[2]} (the ledger says it was committed)",
    ]
    assert lines[-1].startswith("Nothing was changed.")


def test_an_object_of_another_size_than_recorded_has_its_footer_read():
    found = listing((NAMES[0], 100), (NAMES[1], 99))
    done, unrecorded = hold(found, record(0), record(1))
    assert list(done) == [0]
    assert [(index, info.size) for index, info in unrecorded] == [(1, 99)]


def test_a_part_of_another_run_is_a_stray():
    other = part_name(PLAN.shards[0], "e" * 64)
    with pytest.raises(OutputConflictError, match=f"not of this run  {other}"):
        hold(listing((other, 100)))


def test_of_many_problems_twenty_are_shown_and_all_are_counted():
    found = listing(*((f"stray-{n:02d}", 1) for n in range(25)))
    with pytest.raises(OutputConflictError) as error:
        hold(found)
    text = str(error.value)
    assert ("25 problem(s)" in text, "stray-19" in text, "stray-20" in text) == (True, True, False)
    assert "... and 5 more" in text


def test_success_lists_the_files_in_input_order_with_their_sums():
    done = {
        2: ShardRecord(2, "part-2", 20, 29, 1),
        0: ShardRecord(0, "part-0", 10, 10, 0),
    }
    assert success_record(FINGERPRINT, done) == {
        "fingerprint": FINGERPRINT,
        "files": [
            {"name": "part-0", "rows": 10, "size_bytes": 10},
            {"name": "part-2", "rows": 29, "size_bytes": 20},
        ],
        "rows": 39,
        "rejected": 1,
    }
