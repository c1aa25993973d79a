"""The figures of a run: one JSON line for machines, and the same in `_batchinfer/report.json`."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from typing import Any, Mapping, Optional, Sequence

from batchinfer import __version__
from batchinfer.ledger import ShardRecord
from batchinfer.plan import ShardPlan

QUARANTINE_SHOWN = 20  # in the report; quarantine.json has all


@dataclass(frozen=True)
class Outcome:
    """How a run went.

    Attributes:
        status: done, gave_up or stopped; `reason` says why, and what was rejected.
        done: every committed shard, of this and of earlier runs.
        scored: those that actors of this run came back with.
        adopted: those that lay there without a record when this run began.
        given_up: shard -> the errors of its attempts.
        devices: of every actor that started.
        batch_rows: per device, rows of one run of the model.
        seconds: of the whole command; `seconds_scoring` since the first actor had its model.
    """

    status: str
    done: Mapping[int, ShardRecord]
    scored: Sequence[ShardRecord] = ()
    adopted: Sequence[ShardRecord] = ()
    given_up: Mapping[int, Sequence[str]] = field(default_factory=dict)
    devices: Sequence[str] = ()
    actors_lost: int = 0
    retries: int = 0
    seconds: float = 0.0
    seconds_scoring: float = 0.0
    batch_rows: Mapping[str, int] = field(default_factory=dict)
    reason: Optional[str] = None


def build_report(
    output: str, run: Mapping[str, Any], plan: ShardPlan, outcome: Outcome
) -> dict[str, Any]:
    """All figures of one run, as JSON will hold them.

    Returns:
        Row counts over the whole output: rows_in = rows_out + rows_rejected + rows_missing.
        `rows_per_s` and `stage_seconds` are of this run alone, the latter summed over threads
        and actors.
    """
    done, scored, adopted = outcome.done, outcome.scored, outcome.adopted
    missing = [shard for shard in plan.shards if shard.index not in done]
    rows = sum(record.rows + record.rejected for record in scored)
    return {
        "status": outcome.status,
        **({"reason": outcome.reason} if outcome.reason else {}),
        "rows_in": plan.num_rows,
        "rows_out": sum(record.rows for record in done.values()),
        "rows_rejected": sum(record.rejected for record in done.values()),
        "rows_missing": sum(shard.num_rows for shard in missing),
        "shards": len(plan.shards),
        "shards_scored": sum(not record.adopted for record in scored),
        "shards_adopted": len(adopted) + sum(record.adopted for record in scored),
        "shards_done_before": len(done) - len(scored) - len(adopted),
        "shards_missing": len(missing),
        "quarantined": _quarantined(plan, outcome.given_up),
        "seconds": round(outcome.seconds, 3),
        "seconds_scoring": round(outcome.seconds_scoring, 3),
        "stage_seconds": _stage_seconds(scored),
        "rows_per_s": _rate(rows, outcome.seconds_scoring),
        "device": ", ".join(sorted(set(outcome.devices))),
        "batch_rows": dict(outcome.batch_rows),
        "actors": len(outcome.devices),
        "actors_lost": outcome.actors_lost,
        "retries": outcome.retries,
        "output": output,
        "bundle_digest": run["bundle_digest"],
        "fingerprint": run["fingerprint"],
        "versions": {"batchinfer": __version__, "python": platform.python_version()},
    }


def _rate(rows: int, seconds: float) -> float:
    return round(rows / seconds, 1) if seconds > 0 else 0.0


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
