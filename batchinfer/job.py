"""What an actor is told about the run: one small picklable record, with nothing live in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Optional

from batchinfer.outputs import Outputs
from batchinfer.preprocess import Preprocess
from batchinfer.storage import Retry, Store, open_store


@dataclass(frozen=True)
class ScoringJob:
    """All that an actor needs to know, small and picklable.

    Attributes:
        bundle, bundle_digest: the folder, and what must be in it.
        output, fingerprint: the run folder, and whose run it is.
        signature, columns, kept: as JSON, as a mapping, and as a serialised Arrow schema.
        outputs: what is written of the model's outputs.
        preprocess: the hook that makes the model's inputs, if there is one.
        num_rows, most_shard_rows: that are to be scored in all, and of the largest shard.
        batch_rows: rows per session run, or None.
        gpus, cpus: what the actor has reserved.
        storage_options: of the fsspec file system.
        retry_budget_s: seconds that one storage operation is tried.
        xla: whether the model is compiled with XLA.
        profile: whether the steps of each shard are wanted.
        fail_on_bad_row: a row that cannot be scored ends the run; else it goes to the rejects.
        exclusive: what the probe of the output store found; see Store.creates_exclusively.
    """

    bundle: str
    bundle_digest: str
    output: str
    fingerprint: str
    signature: Mapping[str, Any]
    columns: Mapping[str, str]
    kept: bytes
    outputs: Outputs
    preprocess: Optional[Preprocess]
    num_rows: int
    most_shard_rows: int
    batch_rows: Optional[int]
    gpus: float
    cpus: int
    storage_options: Mapping[str, Any]
    retry_budget_s: float
    exclusive: bool
    xla: bool = False
    profile: bool = False
    fail_on_bad_row: bool = False

    def open_store(self, url: str) -> tuple[Store, str]:
        return open_store(url, self.storage_options, Retry(self.retry_budget_s))
