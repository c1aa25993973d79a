"""One create is the commit; what lies there already is counted only when it is this shard."""

from __future__ import annotations

import numpy as np
import pytest

from batchinfer.arrow import pa, pq
from batchinfer.commit import adopt, commit_shard
from batchinfer.errors import CommitError
from batchinfer.ledger import ShardRecord
from batchinfer.prediction_writer import PredictionWriter, object_metadata, rejects_object
from batchinfer.rejects import Rejects
from batchinfer.run_folder import part_name, rejects_name, run_record
from batchinfer.schema import Columns
from batchinfer.signature import Signature
from batchinfer.storage import Retry
from batchinfer.storage.memory import MemoryStore
from tests.support import tiny
from tests.support.folders import new_folder, plan_of

PLAN = plan_of(4, 5)
SHARD, OTHER_SHARD = PLAN.shards
FINGERPRINT = run_record("bundle", PLAN, {})["fingerprint"]
COLUMNS = Columns(Signature.from_json(tiny.SIGNATURE), {"x": "x"}, pa.schema([("id", pa.int64())]))
PART, REJECTS = part_name(SHARD, FINGERPRINT), rejects_name(SHARD, FINGERPRINT)


def part(*ids, shard=SHARD, fingerprint=FINGERPRINT, scale=1.0):
    """The whole object of a shard in which these rows were scored."""
    writer = PredictionWriter(COLUMNS, object_metadata(shard, fingerprint))
    y = tiny.expected(np.array(ids)) * np.float32(scale)
    writer.add([pa.table({"id": list(ids)})], {"best": y.argmax(1), "y": y})
    return writer.finish()


def rejects(*ids):
    found = Rejects(COLUMNS.kept)
    if ids:
        reasons = ["x: null"] * len(ids)
        found.add("memory://in/0.parquet", ids, reasons, pa.table({"id": list(ids)}))
    return found


def commit(folder, data, rejected=None, shard=SHARD):
    return commit_shard(folder, FINGERPRINT, shard, data, rejected or rejects())


def content(folder, name):
    return folder.store.read(folder.at(name))


class RecordingStore(MemoryStore):
    """Remembers every name that `create` was asked for."""

    def __init__(self):
        super().__init__(Retry(0.0))
        self.created = []

    def create(self, path, data):
        self.created.append(path)
        return super().create(path, data)


def test_a_shard_is_one_object_and_its_record():
    folder, data = new_folder(), part(0, 1, 2, 3)
    assert commit(folder, data) == ShardRecord(0, PART, len(data), 4, 0)
    assert (list(folder.list()), content(folder, PART)) == ([PART], data.to_pybytes())


def test_rejects_lie_there_before_the_part_is_visible():
    folder = new_folder(RecordingStore())
    record = commit(folder, part(0, 3), rejects(1, 2))
    assert (record.rows, record.rejected) == (2, 2)
    assert folder.store.created == [folder.at(REJECTS), folder.at(PART)]
    table = pq.ParquetFile(pa.BufferReader(content(folder, REJECTS))).read(use_threads=False)
    assert table.column("_row").to_pylist() == [1, 2]


def test_the_same_shard_committed_before_is_adopted_as_it_is():
    folder, first = new_folder(), part(0, 1, 2, 3)
    commit(folder, first)
    again = part(0, 1, 2, 3, scale=1.5)  # a GPU's other last bits
    record = commit(folder, again)
    assert record == ShardRecord(0, PART, len(first), 4, 0, adopted=True)
    assert content(folder, PART) == first.to_pybytes()


def test_an_attempt_that_died_after_its_rejects_is_finished_by_the_next():
    folder = new_folder()
    metadata = object_metadata(SHARD, FINGERPRINT)
    found = rejects_object(rejects(1, 2), metadata)
    folder.store.create(folder.at(REJECTS), found)
    record = commit(folder, part(0, 3), rejects(1, 2))
    assert (record.rows, record.rejected, record.adopted) == (2, 2, False)


def test_rejects_of_another_attempt_with_other_rows_are_no_match():
    folder = new_folder()
    metadata = object_metadata(SHARD, FINGERPRINT)
    folder.store.create(folder.at(REJECTS), rejects_object(rejects(1), metadata))
    with pytest.raises(CommitError, match="2 rows, found the same names and 1 rows"):
        commit(folder, part(0, 3), rejects(1, 2))
    assert PART not in folder.list()


def test_an_object_in_the_place_of_the_rejects_stops_the_part():
    folder = new_folder()
    folder.store.create(folder.at(REJECTS), b"theirs")
    with pytest.raises(CommitError, match="is not a whole Parquet object"):
        commit(folder, part(0, 3), rejects(1, 2))
    assert PART not in folder.list()


FOREIGN = [
    ("no Parquet", lambda: b"theirs", "is not a whole Parquet object"),
    ("empty", lambda: b"", "is not a whole Parquet object"),
    ("another run", lambda: part(0, 1, 2, 3, fingerprint="e" * 64), r"found {'batchinfer\.fin"),
    ("another shard", lambda: part(0, 1, 2, 3, shard=OTHER_SHARD), r"found {'batchinfer\.unit'"),
    ("too many rows", lambda: part(0, 1, 2, 3, 4), "4 rows, found the same names and 5 rows"),
]


@pytest.mark.parametrize("data, words", [f[1:] for f in FOREIGN], ids=[f[0] for f in FOREIGN])
def test_what_is_not_this_shard_of_this_run_is_never_counted_nor_touched(data, words):
    folder, theirs = new_folder(), bytes(memoryview(data()))
    folder.store.create(folder.at(PART), theirs)
    with pytest.raises(CommitError, match=words):
        commit(folder, part(0, 1, 2, 3))
    with pytest.raises(CommitError, match=words):
        adopt(folder, FINGERPRINT, SHARD, folder.store.info(folder.at(PART)))
    assert content(folder, PART) == theirs


def test_adoption_takes_the_rows_from_the_footer():
    folder, data = new_folder(), part(0, 3)
    folder.store.create(folder.at(PART), data)
    info = folder.list()[PART]
    expected = ShardRecord(0, PART, len(data), 2, 2, adopted=True)
    assert adopt(folder, FINGERPRINT, SHARD, info) == expected
    assert adopt(folder, FINGERPRINT, SHARD) == expected


class ForgetfulStore(MemoryStore):
    """Refuses every name as taken and has none."""

    def create(self, path, data):
        return False


def test_a_store_that_contradicts_itself_is_an_error():
    with pytest.raises(CommitError, match="refused as existing, and then was not there"):
        commit(new_folder(ForgetfulStore(Retry(0.0))), part(0, 1, 2, 3))
