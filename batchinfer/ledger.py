"""Which shards are done: segments of records that the driver appends, and the objects themselves.

The objects are the truth; the ledger only saves opening each of them. An object that no
segment knows was committed just before a crash: its footer tells what it is.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Mapping

from batchinfer.errors import OutputConflictError
from batchinfer.plan import ShardPlan
from batchinfer.run_folder import STATE, SUCCESS, RunFolder, part_name, visible
from batchinfer.storage import ObjectInfo

READ_THREADS = 16


@dataclass(frozen=True)
class ShardRecord:
    """One committed shard.

    Attributes:
        shard: its index in the plan.
        name, size_bytes: of the committed object.
        rows, rejected: rows written, and rows put to the rejects; together all rows of the shard.
        seconds: time per stage, summed over its threads; empty for an adopted shard.
        attempts: tries it took, this one included.
        adopted: the object lay there already when it was to be created or counted.
    """

    shard: int
    name: str
    size_bytes: int
    rows: int
    rejected: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    attempts: int = 1
    adopted: bool = False


class Ledger:
    """Appends records to `_batchinfer/ledger/<epoch>-<number>.jsonl`; used by one driver."""

    def __init__(self, folder: RunFolder, epoch: int) -> None:
        self._folder = folder
        self._epoch = epoch
        self._number = 0
        self._pending: list[ShardRecord] = []

    def add(self, record: ShardRecord) -> None:
        self._pending.append(record)

    def flush(self) -> None:
        """Write what was added since the last flush as one segment."""
        if not self._pending:
            return
        lines = "".join(
            json.dumps(asdict(record), sort_keys=True) + "\n" for record in self._pending
        )
        name = f"{STATE}/ledger/{self._epoch:06d}-{self._number:06d}.jsonl"
        self._folder.store.create(self._folder.at(name), lines.encode())
        self._number += 1
        self._pending = []


def read_ledger(folder: RunFolder, listing: Mapping[str, ObjectInfo]) -> dict[int, ShardRecord]:
    """Every record of every segment in a listing, by shard; the first record of a shard counts."""
    names = sorted(name for name in listing if name.startswith(f"{STATE}/ledger/"))
    records: dict[int, ShardRecord] = {}
    with ThreadPoolExecutor(READ_THREADS) as pool:
        for data in pool.map(lambda name: folder.store.read(folder.at(name)), names):
            # All lines at once: a call of the parser for each takes twice as long.
            for fields in json.loads(f"[{','.join(data.decode().splitlines())}]"):
                record = ShardRecord(**fields)
                records.setdefault(record.shard, record)
    return records


def reconcile(
    folder: RunFolder,
    plan: ShardPlan,
    fingerprint: str,
    listing: Mapping[str, ObjectInfo],
    records: Mapping[int, ShardRecord],
) -> tuple[dict[int, ShardRecord], list[tuple[int, ObjectInfo]]]:
    """Hold the listing against plan and ledger.

    Returns:
        The shards that are done, and (shard, object) of those that lie there unrecorded or with
        another size than was recorded: their footers have to be read. (A store that ignores
        the condition on a create lets a late attempt write the same shard again.)

    Raises:
        OutputConflictError: objects that no shard of the plan has, or recorded objects that are
            missing; all are listed (20 shown), nothing is deleted.
    """
    expected = {part_name(shard, fingerprint): shard.index for shard in plan.shards}
    problems = [f"not of this run  {name}" for name in visible(listing) if name not in expected]
    done: dict[int, ShardRecord] = {}
    unrecorded: list[tuple[int, ObjectInfo]] = []
    for name, index in expected.items():
        record, info = records.get(index), listing.get(name)
        if record is not None and info is None:
            problems.append(f"missing          {name} (the ledger says it was committed)")
        elif record is not None and info is not None and record.size_bytes == info.size:
            done[index] = record
        elif info is not None:
            unrecorded.append((index, info))
    if problems:
        more = [f"... and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise OutputConflictError(
            f"{folder.url} is not as this run left it; {len(problems)} problem(s):\n  "
            + "\n  ".join(problems[:20] + more)
            + "\nNothing was changed. Put the objects back or move the strays away, or use another "
            "--output."
        )
    return done, unrecorded


def success_record(fingerprint: str, done: Mapping[int, ShardRecord]) -> dict[str, Any]:
    """What `_SUCCESS` holds: the files with their rows, and the sums."""
    records = [done[index] for index in sorted(done)]
    return {
        "fingerprint": fingerprint,
        "files": [{"name": r.name, "rows": r.rows, "size_bytes": r.size_bytes} for r in records],
        "rows": sum(record.rows for record in records),
        "rejected": sum(record.rejected for record in records),
    }


__all__ = ["SUCCESS", "Ledger", "ShardRecord", "read_ledger", "reconcile", "success_record"]
