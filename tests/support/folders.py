"""Run folders in memory, each a new one, and plans of files that nobody opens."""

from __future__ import annotations

import uuid

from batchinfer.plan import InputFile, RowGroup, ShardPlan, make_plan
from batchinfer.run_folder import RunFolder
from batchinfer.storage import Retry
from batchinfer.storage.memory import MemoryStore


def new_folder(store=None) -> RunFolder:
    return RunFolder(store or MemoryStore(Retry(0.0)), f"{uuid.uuid4().hex}/out")


def plan_of(*rows: int) -> ShardPlan:
    """One shard per number, each a file of its own with so many rows."""
    files = [
        InputFile(f"memory://in/{number}.parquet", 1000, "v1", (RowGroup(n, 100),))
        for number, n in enumerate(rows)
    ]
    return make_plan(files, shard_bytes=100)
