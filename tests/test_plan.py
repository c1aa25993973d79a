"""Shards from row groups: cut, put together, digested, and read back."""

from __future__ import annotations

import io
import pickle

import pytest

from batchinfer.arrow import pa, pq
from batchinfer.errors import OutputConflictError
from batchinfer.plan import MIB, InputFile, RowGroup, ShardPlan, check_unchanged, make_plan


def file(name, *sizes, rows=10, problem="", version="v1"):
    groups = tuple(RowGroup(rows, size) for size in sizes)
    return InputFile(name, 1000, version, groups, problem)


def shape(plan):
    """Per shard: (file, first row group, stop row group) of each segment."""
    return [
        [(s.url, s.first_row_group, s.stop_row_group) for s in shard.segments]
        for shard in plan.shards
    ]


def test_a_large_file_is_cut_between_row_groups():
    plan = make_plan([file("a", 60, 60, 60, 60, 60)], shard_bytes=100)
    assert shape(plan) == [[("a", 0, 2)], [("a", 2, 4)], [("a", 4, 5)]]
    assert [shard.segments[0].first_row for shard in plan.shards] == [0, 20, 40]


def test_small_files_are_put_together():
    plan = make_plan([file(name, 40) for name in "abcde"], shard_bytes=100)
    assert shape(plan) == [
        [("a", 0, 1), ("b", 0, 1), ("c", 0, 1)],
        [("d", 0, 1), ("e", 0, 1)],
    ]


def test_a_row_group_is_never_cut():
    assert shape(make_plan([file("a", 5000)], shard_bytes=100)) == [[("a", 0, 1)]]


def test_a_file_with_a_problem_fails_alone():
    files = [file("a", 10), file("b", problem="torn"), file("c", 10)]
    assert shape(make_plan(files, shard_bytes=100)) == [
        [("a", 0, 1)],
        [("b", 0, 0)],
        [("c", 0, 1)],
    ]


def test_rows_of_a_file_that_does_not_fit_are_counted_in_one_shard_of_its_own():
    files = [file("a", 10), file("b", 300, 300, problem="no column 'x'"), file("c", 10)]
    plan = make_plan(files, shard_bytes=100)
    assert shape(plan) == [[("a", 0, 1)], [("b", 0, 2)], [("c", 0, 1)]]
    assert [shard.num_rows for shard in plan.shards] == [10, 20, 10]


def test_files_that_do_not_fit_have_no_say_in_the_size_of_shards():
    strangers = [file(f"z{i}", 64 * MIB, problem="no column 'x'") for i in range(1000)]
    plan = make_plan([file(str(i), MIB // 4) for i in range(40)] + strangers)
    assert {len(shard.segments) for shard in plan.shards[:10]} == {4}


def test_files_without_rows_are_counted_in_a_shard():
    plan = make_plan([file("a"), file("b", 10), file("c")], shard_bytes=100)
    assert (shape(plan), plan.num_rows) == ([[("a", 0, 0), ("b", 0, 1), ("c", 0, 0)]], 10)


def test_shards_of_a_small_input_have_at_least_a_mebibyte():
    plan = make_plan([file(str(i), MIB // 4) for i in range(40)])
    assert {len(shard.segments) for shard in plan.shards} == {4}


def test_shards_of_a_large_input_have_at_most_128_mebibytes():
    plan = make_plan([file(str(i), 64 * MIB) for i in range(1000)])
    assert {len(shard.segments) for shard in plan.shards} == {2}


def test_a_plan_comes_back_from_parquet_as_it_was():
    plan = make_plan([file("a ü%#", 60, 60), file("b", problem="torn"), file("c")], 100)
    again = ShardPlan.from_parquet(plan.to_parquet())
    assert again == plan
    assert again.digest == plan.digest


MIXED = [
    file("s3://in/a ü.parquet", 60, 60, 60),
    file("s3://in/b.parquet", version="v2", problem="torn"),
    file("s3://in/c.parquet", 40, version="1700000000000000001"),
    file("s3://in/d.parquet"),
]


def test_digest_and_units_of_a_plan_are_what_they_always_were():
    # Literals of the first release: other values would refuse, or score again, what exists.
    plan = make_plan(MIXED, 100)
    assert plan.digest == "9ef463b17bd377cc920d0d753c9bc905dabd102eda50c8402f671f6b904db361"
    assert [shard.unit[:16] for shard in plan.shards] == [
        "6db52780af0dfb2d",
        "305d53a03d93b50b",
        "ee70adc7fb66ca02",
        "32b310e56b491e6b",
    ]


def test_a_plan_reads_back_whatever_the_order_of_its_rows():
    plan = make_plan(MIXED, 100)
    table = pq.read_table(pa.BufferReader(plan.to_parquet()))
    sink = io.BytesIO()
    pq.write_table(table.take([3, 2, 4, 0, 1]), sink, row_group_size=2)
    assert ShardPlan.from_parquet(sink.getvalue()) == plan


def test_a_plan_without_shards_comes_back():
    assert ShardPlan.from_parquet(ShardPlan(()).to_parquet()) == ShardPlan(())


def test_a_shard_that_was_sent_to_an_actor_is_the_same_shard():
    shard = make_plan(MIXED, 100).shards[0]
    before = pickle.loads(pickle.dumps(shard))
    unit = shard.unit
    after = pickle.loads(pickle.dumps(shard))  # now it brings its unit along
    assert before == after == shard
    assert before.unit == after.unit == unit


@pytest.mark.parametrize(
    "other",
    [
        [file("a", 60, 60, version="v2")],
        [file("a", 60, 60, rows=11)],
        [file("b", 60, 60)],
        [file("a", 60)],
    ],
    ids=["version", "rows", "name", "row groups"],
)
def test_the_digest_tells_what_the_input_was(other):
    assert make_plan(other).digest != make_plan([file("a", 60, 60)]).digest


def test_the_unit_of_a_shard_does_not_depend_on_its_neighbours():
    alone = make_plan([file("a", 100)], 100).shards[0]
    second = make_plan([file("z", 100), file("a", 100)], 100).shards[1]
    assert (alone.index, second.index) == (0, 1)
    assert alone.unit == second.unit


def test_every_changed_file_is_listed():
    plan = make_plan([file("a", 1), file("b", 1), file("c", 1)])
    with pytest.raises(OutputConflictError) as error:
        check_unchanged(plan, [("a", 1000, "v1"), ("b", 1000, "v2"), ("d", 1, "v1")])
    lines = str(error.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:4]] == [
        "added    d",
        "missing  c",
        "changed  b",
    ]


def test_the_same_files_are_no_conflict():
    plan = make_plan([file("a", 1), file("b", problem="torn")])
    check_unchanged(plan, [("b", 1000, "v1"), ("a", 1000, "v1")])
