"""The end of a run: the listing against the records, then `_SUCCESS` or the quarantine list."""

from __future__ import annotations

from typing import Mapping, Sequence

from batchinfer.commit import adopt
from batchinfer.errors import CommitError
from batchinfer.ledger import ShardRecord, success_record
from batchinfer.prepare import PreparedRun
from batchinfer.report import plan_files
from batchinfer.run_folder import STATE, SUCCESS, part_name, rejects_name, visible

QUARANTINE = f"{STATE}/quarantine.json"


def finish(
    prepared: PreparedRun,
    done: Mapping[int, ShardRecord],
    quarantined: Mapping[int, Sequence[str]],
) -> str:
    """Prove that every row is there, and say so; or list the shards that are not.

    Returns:
        done, or gave_up: shards are missing, or every row was rejected.

    Raises:
        CommitError: the output does not hold exactly what was committed.
    """
    folder, plan = prepared.folder, prepared.plan
    done = _audit(prepared, done)
    if len(done) < len(plan.shards):
        entries = [
            {"shard": index, "files": plan_files(plan, index), "errors": list(errors)}
            for index, errors in sorted(quarantined.items())
        ]
        folder.put_json(QUARANTINE, {"shards": entries})
        return "gave_up"
    if not any(record.rows for record in done.values()) and plan.num_rows:
        return "gave_up"  # every single row was rejected: nobody wants that called a success
    if folder.store.info(folder.at(QUARANTINE)):
        folder.put_json(QUARANTINE, {"shards": []})  # of an earlier run; nothing is ever deleted
    folder.create_json(SUCCESS, success_record(prepared.fingerprint, done))
    return "done"


def _audit(prepared: PreparedRun, done: Mapping[int, ShardRecord]) -> dict[int, ShardRecord]:
    """The records, once the objects that lie there are exactly theirs, rejects included.

    An object of another size than was recorded may be a late attempt's, on a store that
    ignores the condition on a create: its footer tells.
    """
    listing = prepared.folder.list()
    fingerprint, shards = prepared.fingerprint, prepared.plan.shards
    expected = {part_name(shards[index], fingerprint): record for index, record in done.items()}
    # A shard that was given up may have an object all the same: a late actor's, or a stranger's.
    planned_names = {part_name(shard, fingerprint) for shard in shards}
    problems = sorted((set(visible(listing)) - planned_names) | (set(expected) - set(listing)))
    found = {
        record.shard: adopt(prepared.folder, fingerprint, shards[record.shard], listing[name])
        for name, record in expected.items()
        if name in listing and listing[name].size != record.size_bytes
    }
    done = {**done, **found}
    problems += [
        name
        for name in (rejects_name(shards[i], fingerprint) for i, r in done.items() if r.rejected)
        if name not in listing
    ]
    rows = sum(record.rows + record.rejected for record in done.values())
    planned = sum(shards[index].num_rows for index in done)
    if problems or rows != planned:
        raise CommitError(
            f"{prepared.folder.url} does not hold exactly what was committed: {rows} rows of "
            f"{planned}; {len(problems)} object(s) missing or added: "
            f"{', '.join(problems[:10])}"
        )
    return done
