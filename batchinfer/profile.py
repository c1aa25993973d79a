"""Where each actor's time went, step by step: a trace for chrome://tracing or Perfetto."""

from __future__ import annotations

import json
from typing import Any, Dict, List, Sequence, Tuple

from batchinfer.shard_progress import Span

MOST_SPANS = 500_000  # about 60 MB of JSON; a viewer takes no more either
ROWS = ("read", "wait", "score", "encode", "write")  # from top to bottom


class Profile:
    """The steps of all shards, actor by actor.

    A track of the trace is one thread's work of one kind: an actor has two shards in hand, so
    reading, waiting, encoding and writing have two tracks each, the session runs one per thread.
    """

    def __init__(self) -> None:
        self._spans: List[Tuple[str, int, Span]] = []
        self.left_out = 0

    def add(self, actor: str, shard: int, spans: Sequence[Span]) -> None:
        """Keep the steps of a shard; those over `MOST_SPANS` are only counted."""
        room = max(0, MOST_SPANS - len(self._spans))
        self._spans += [(actor, shard, span) for span in spans[:room]]
        self.left_out += max(0, len(spans) - room)

    def to_json(self) -> bytes:
        """Chrome's Trace Event Format: complete events, in microseconds since the first began."""
        began = min((span[2] for _, _, span in self._spans), default=0.0)
        processes: Dict[str, int] = {}
        threads: Dict[Tuple[int, str], int] = {}
        events: List[Dict[str, Any]] = []
        for actor, shard, (stage, track, start, end, rows) in self._spans:
            process = processes.setdefault(actor, len(processes) + 1)
            events.append(
                {
                    "name": stage,
                    "ph": "X",
                    "ts": round((start - began) * 1e6, 1),
                    "dur": round((end - start) * 1e6, 1),
                    "pid": process,
                    "tid": threads.setdefault((process, track), len(threads) + 1),
                    "args": {"shard": shard, "rows": rows},
                }
            )
        trace = {
            "displayTimeUnit": "ms",
            "traceEvents": [*_names(processes, threads), *events],
            "otherData": {"spans_left_out": self.left_out},
        }
        return json.dumps(trace).encode()


def _names(processes: Dict[str, int], threads: Dict[Tuple[int, str], int]) -> List[Dict[str, Any]]:
    found = [_meta("process_name", number, 0, {"name": name}) for name, number in processes.items()]
    for (process, track), number in threads.items():
        found.append(_meta("thread_name", process, number, {"name": track}))
        stage = track.split(" ")[0]
        order = ROWS.index(stage) if stage in ROWS else len(ROWS)
        found.append(_meta("thread_sort_index", process, number, {"sort_index": order}))
    return found


def _meta(name: str, process: int, thread: int, args: Dict[str, Any]) -> Dict[str, Any]:
    return {"name": name, "ph": "M", "pid": process, "tid": thread, "args": args}
