"""Task: what one run of one system is told, and the marks that it leaves while it runs."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any, Mapping, Optional, Sequence

KEY = "id"
OUTPUT = "probabilities"
TASK_VARIABLE = "BATCHINFER_BENCHMARK_TASK"  # of the environment: a Task for the actors


@dataclass(frozen=True)
class Task:
    """One run of one system; small, and the same for all of a round.

    Attributes:
        data: folder of the Parquet files.
        repeats: how many names each distinct file has in `data`; `raw` reads one and runs it so
            often.
        bundle: folder of the model, a SavedModel.
        out: folder for the predictions: KEY and OUTPUT.
        events: file to which the marks are appended.
        column, dtype, row_shape: of the input; dtype `string` is bytes of any length.
        feed, fetch: names of the tensors.
        num_outputs: floats per row that the model gives.
        batch_rows: rows per run of the model, swept for each workload once.
        parallelism: blocks that Ray Data reads, where it is tuned.
        save: where `raw` puts its predictions for the others to be compared with.
        device_rows_per_s: of a simulated device in the place of the model; 0 is the model.
    """

    data: str
    repeats: int
    bundle: str
    out: str
    events: str
    column: str
    dtype: str
    row_shape: Sequence[int]
    feed: str
    fetch: str
    num_outputs: int
    batch_rows: int
    parallelism: int = 16
    save: Optional[str] = None
    device_rows_per_s: float = 0.0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        return cls(**json.loads(text))

    def files(self) -> list[str]:
        """Paths of the input, in order."""
        names = sorted(name for name in os.listdir(self.data) if name.endswith(".parquet"))
        return [os.path.join(self.data, name) for name in names]

    def distinct_files(self) -> list[str]:
        """Each file once; the others are hard links to these."""
        found: dict[int, str] = {}
        for path in self.files():
            found.setdefault(os.stat(path).st_ino, path)
        return list(found.values())

    def mark(self, event: str, **more: Any) -> None:
        """Append an event with the time; several processes may do so.

        `ready`: the model can be called. `first_row`: it gave the first predictions. `written`:
        all output is there.
        """
        line = json.dumps({"event": event, "time": time.time(), **more}) + "\n"
        descriptor = os.open(self.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def read_events(path: str) -> dict[str, Mapping[str, Any]]:
    """The first of each event by its name; empty when there is no file."""
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        marks = [json.loads(line) for line in file]
    found: dict[str, Mapping[str, Any]] = {}
    for one in sorted(marks, key=lambda one: one["time"]):
        found.setdefault(one["event"], one)
    return found
