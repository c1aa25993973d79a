"""The figures of a run: one JSON line for machines, and the same in `_batchinfer/report.json`."""

from __future__ import annotations

import platform
from typing import Any, Mapping, Optional, Sequence

from batchinfer import __version__
from batchinfer.ledger import ShardRecord
from batchinfer.plan import ShardPlan

QUARANTINE_SHOWN = 20  # in the report; quarantine.json has all


def build_report(
    status: str,
    output: str,
    run: Mapping[str, Any],
    plan: ShardPlan,
    done: Mapping[int, ShardRecord],
    scored_now: Sequence[ShardRecord],
    quarantined: Mapping[int, Sequence[str]],
    seconds: float,
    seconds_scoring: float,
    devices: Sequence[str] = (),
    actors_lost: int = 0,
    retries: int = 0,
    reason: Optional[str] = None,
) -> dict[str, Any]:
    """All figures of one run.

    Args:
        status: done, gave_up or stopped.
        done: every committed shard, of this and of earlier runs.
        scored_now: those committed by this run.
        seconds: of the whole command; `seconds_scoring` since the first actor had its model.
        devices: of every actor that started in this run.

    Returns:
        Row counts over the whole output: rows_in = rows_out + rows_rejected + rows of the shards
        that are missing. `rows_per_s` and `stage_seconds` are of this run alone, the latter
        summed over threads and actors.
    """
    records = list(done.values())
    rows_now = sum(record.rows + record.rejected for record in scored_now)
    stages: dict[str, float] = {}
    for record in scored_now:
        for stage, spent in record.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    missing = [shard for shard in plan.shards if shard.index not in done]
    return {
        "status": status,
        **({"reason": reason} if reason else {}),
        "rows_in": plan.num_rows,
        "rows_out": sum(record.rows for record in records),
        "rows_rejected": sum(record.rejected for record in records),
        "rows_missing": sum(shard.num_rows for shard in missing),
        "shards": len(plan.shards),
        "shards_scored": sum(not record.adopted for record in scored_now),
        "shards_adopted": sum(record.adopted for record in scored_now),
        "shards_done_before": len(done) - len(scored_now),
        "shards_missing": len(missing),
        "quarantined": [
            {"shard": index, "files": plan_files(plan, index), "errors": list(errors)}
            for index, errors in sorted(quarantined.items())[:QUARANTINE_SHOWN]
        ],
        "seconds": round(seconds, 3),
        "seconds_scoring": round(seconds_scoring, 3),
        "stage_seconds": {stage: round(spent, 3) for stage, spent in sorted(stages.items())},
        "rows_per_s": round(rows_now / seconds_scoring, 1) if seconds_scoring > 0 else 0.0,
        "device": ", ".join(sorted(set(devices))) or None,
        "actors": len(devices),
        "actors_lost": actors_lost,
        "retries": retries,
        "output": output,
        "bundle_digest": run["bundle_digest"],
        "fingerprint": run["fingerprint"],
        "versions": {"batchinfer": __version__, "python": platform.python_version()},
    }


def plan_files(plan: ShardPlan, index: int) -> list[str]:
    """The input files of a shard, each once."""
    return list(dict.fromkeys(segment.url for segment in plan.shards[index].segments))
