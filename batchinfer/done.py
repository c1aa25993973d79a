"""Which shards are committed: the listing, the ledger, and the footers of what it does not know."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Mapping

from batchinfer.commit import adopt
from batchinfer.errors import CommitError, OutputConflictError
from batchinfer.ledger import ShardRecord, read_ledger, reconcile
from batchinfer.plan import ShardPlan
from batchinfer.run_folder import RunFolder
from batchinfer.storage import ObjectInfo

ADOPT_THREADS = 16


def what_is_done(
    folder: RunFolder, plan: ShardPlan, fingerprint: str, listing: Mapping[str, ObjectInfo]
) -> tuple[dict[int, ShardRecord], tuple[ShardRecord, ...]]:
    """The committed shards in a listing; second, those of them that the ledger did not know.

    Raises:
        OutputConflictError: the listing and the ledger contradict each other, or an object
            lies under a shard's name and is not that shard of this run.
    """
    done, unrecorded = reconcile(folder, plan, fingerprint, listing, read_ledger(folder, listing))
    try:
        with ThreadPoolExecutor(ADOPT_THREADS) as pool:
            found = pool.map(
                lambda one: adopt(folder, fingerprint, plan.shards[one[0]], one[1]), unrecorded
            )
            adopted = tuple(found)
    except CommitError as error:
        raise OutputConflictError(f"{error}. Move it away, or use another --output.") from error
    return {**done, **{record.shard: record for record in adopted}}, adopted
