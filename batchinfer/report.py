"""The figures of a run: one JSON line for machines, and the same in `_batchinfer/report.json`."""

from __future__ import annotations

import platform
from typing import Any, Mapping, Optional, Sequence

from batchinfer import __version__
from batchinfer.dispatcher import Dispatcher
from batchinfer.ledger import ShardRecord
from batchinfer.plan import ShardPlan

QUARANTINE_SHOWN = 20  # in the report; quarantine.json has all


def build_report(
    status: str,
    output: str,
    run: Mapping[str, Any],
    plan: ShardPlan,
    done: Mapping[int, ShardRecord],
    scored: Sequence[ShardRecord],
    adopted: Sequence[ShardRecord],
    dispatcher: Optional[Dispatcher],
    seconds: float,
    seconds_scoring: float,
    reason: Optional[str] = None,
) -> dict[str, Any]:
    """All figures of one run.

    Args:
        status: done, gave_up or stopped; `reason` says why it stopped.
        done: every committed shard, of this and of earlier runs.
        scored: those that actors of this run came back with.
        adopted: those that lay there without a record when this run began.
        dispatcher: of this run; None when there was nothing to score.
        seconds: of the whole command; `seconds_scoring` since the first actor had its model.

    Returns:
        Row counts over the whole output: rows_in = rows_out + rows_rejected + rows_missing.
        `rows_per_s` and `stage_seconds` are of this run alone, the latter summed over threads
        and actors.
    """
    missing = [shard for shard in plan.shards if shard.index not in done]
    rows = sum(record.rows + record.rejected for record in scored)
    return {
        "status": status,
        **({"reason": reason} if reason else {}),
        "rows_in": plan.num_rows,
        "rows_out": sum(record.rows for record in done.values()),
        "rows_rejected": sum(record.rejected for record in done.values()),
        "rows_missing": sum(shard.num_rows for shard in missing),
        "shards": len(plan.shards),
        "shards_scored": sum(not record.adopted for record in scored),
        "shards_adopted": len(adopted) + sum(record.adopted for record in scored),
        "shards_done_before": len(done) - len(scored) - len(adopted),
        "shards_missing": len(missing),
        "quarantined": _quarantined(plan, dispatcher.quarantined if dispatcher else {}),
        "seconds": round(seconds, 3),
        "seconds_scoring": round(seconds_scoring, 3),
        "stage_seconds": _stage_seconds(scored),
        "rows_per_s": round(rows / seconds_scoring, 1) if seconds_scoring > 0 else 0.0,
        "device": ", ".join(sorted(set(dispatcher.devices))) if dispatcher else "",
        "actors": len(dispatcher.devices) if dispatcher else 0,
        "actors_lost": dispatcher.actors_lost if dispatcher else 0,
        "retries": dispatcher.retries if dispatcher else 0,
        "output": output,
        "bundle_digest": run["bundle_digest"],
        "fingerprint": run["fingerprint"],
        "versions": {"batchinfer": __version__, "python": platform.python_version()},
    }


def _quarantined(plan: ShardPlan, given_up: Mapping[int, Sequence[str]]) -> list[dict[str, Any]]:
    shown = sorted(given_up.items())[:QUARANTINE_SHOWN]
    return [{"shard": i, "files": plan_files(plan, i), "errors": list(e)} for i, e in shown]


def _stage_seconds(scored: Sequence[ShardRecord]) -> dict[str, float]:
    stages: dict[str, float] = {}
    for record in scored:
        for stage, spent in record.seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    return {stage: round(spent, 3) for stage, spent in sorted(stages.items())}


def plan_files(plan: ShardPlan, index: int) -> list[str]:
    """The input files of a shard, each once."""
    return list(dict.fromkeys(segment.url for segment in plan.shards[index].segments))
