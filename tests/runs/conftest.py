"""A small input, and a whole run over it with threads for actors."""

from __future__ import annotations

import pytest

from batchinfer.driver import run
from batchinfer.options import ClusterOptions, FaultOptions, ScoreOptions
from tests.support import tiny
from tests.support.threads import ThreadBackend

FAULTS = FaultOptions(lease_ttl_s=0.5, retry_budget_s=1.0)


@pytest.fixture
def data(tmp_path):
    """10 files of 300 rows: ids 0 to 2999."""
    tiny.make_data(str(tmp_path / "data"), 10, 300, row_group_rows=100)
    return str(tmp_path / "data")


@pytest.fixture
def score(bundle, data, tmp_path):
    """Run with small shards (one per file) into tmp_path/out; options can be overridden."""

    def call(backend=None, faults=FAULTS, **changes):
        options = {
            "bundle": bundle, "inputs": (data,), "output": str(tmp_path / "out"), "keep": ("id",),
            "shard_bytes": 5000, "batch_rows": 64,
        }  # fmt: skip
        options.update(changes)
        backend = backend or ThreadBackend()
        return run(ScoreOptions(**options), ClusterOptions(), faults, backend.backend())

    return call
