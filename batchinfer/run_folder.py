"""The output folder: the name of each object in it, and the record of whose run it is.

OUTPUT/part-<index>-<unit8>-<run8>.parquet   one committed shard
OUTPUT/_SUCCESS                              all shards are there; written last
OUTPUT/_batchinfer/run.json                  whose output this is; written first
OUTPUT/_batchinfer/plan-<sha16>.parquet      the shards
OUTPUT/_batchinfer/lease/                    which driver may write (lease.py)
OUTPUT/_batchinfer/ledger/                   what is done (ledger.py)
OUTPUT/_batchinfer/rejects/                  rejected rows, one object per shard that has some
OUTPUT/_batchinfer/quarantine.json           shards given up
OUTPUT/_batchinfer/report.json               how the last run went
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Optional

from batchinfer.arrow import pa
from batchinfer.errors import ObjectNotFoundError, OutputConflictError
from batchinfer.plan import Shard, ShardPlan
from batchinfer.storage import ObjectInfo, Store
from batchinfer.storage.store import HIDDEN, join

RUN_FORMAT = 1
STATE = "_batchinfer"
SUCCESS = "_SUCCESS"
NOTHING_KEPT = pa.schema([])


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run, on any store."""

    store: Store
    path: str

    @property
    def url(self) -> str:
        return self.store.url(self.path)

    def at(self, name: str) -> str:
        """The path of an object of this folder."""
        return join(self.path, name)

    def list(self) -> dict[str, ObjectInfo]:
        """Every object in the folder, by its name relative to it; one listing."""
        start = len(self.path.rstrip("/")) + 1 if self.path else 0
        return {info.path[start:]: info for info in self.store.list(self.path)}

    def read_json(self, name: str) -> Optional[dict[str, Any]]:
        """A JSON object of the folder, or None if it is not there.

        Raises:
            OutputConflictError: it is something else, which no run wrote.
        """
        try:
            return dict(json.loads(self.store.read(self.at(name))))
        except ObjectNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise OutputConflictError(f"{self.url}/{name} was changed: {error}") from error

    def put_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.store.put(self.at(name), to_json(value))

    def create_json(self, name: str, value: Mapping[str, Any]) -> bool:
        return self.store.create(self.at(name), to_json(value))

    def read_plan(self, run: Mapping[str, Any]) -> ShardPlan:
        """The plan that `run.json` names.

        Raises:
            OutputConflictError: the plan object is missing or not the one that was written.
        """
        name = plan_name(run["plan_digest"])
        try:
            plan = ShardPlan.from_parquet(self.store.read(self.at(name)))
        except ObjectNotFoundError as error:
            raise OutputConflictError(f"{self.url}/{name} is missing; it was deleted") from error
        except (ValueError, OSError, KeyError) as error:
            raise OutputConflictError(f"{self.url}/{name} was changed: {error}") from error
        if plan.digest != run["plan_digest"]:
            raise OutputConflictError(f"{self.url}/{name} was changed; its digest does not agree")
        return plan


def kept_columns(url: str, run: Mapping[str, Any]) -> pa.Schema:
    """The kept columns as the run found them in its input when it began.

    Raises:
        OutputConflictError: `run.json` does not tell, or contradicts itself.
    """
    try:
        data = base64.b64decode(run["kept_schema"], validate=True)
        kept = pa.ipc.read_schema(pa.py_buffer(data))
    except (KeyError, TypeError, ValueError, OSError, pa.ArrowException) as error:
        raise OutputConflictError(f"{url}/{STATE}/run.json was changed: {error!r}") from error
    if _in_words(kept) != run.get("kept"):
        raise OutputConflictError(
            f"{url}/{STATE}/run.json was changed: it keeps {run.get('kept')}, its schema is "
            f"{_in_words(kept)}"
        )
    return kept


def plan_name(digest: str) -> str:
    return f"{STATE}/plan-{digest[:16]}.parquet"


def part_name(shard: Shard, fingerprint: str) -> str:
    """The name of a shard's predictions; a function of what it holds and of the run."""
    return f"part-{shard.index:07d}-{shard.unit[:8]}-{fingerprint[:8]}.parquet"


def rejects_name(shard: Shard, fingerprint: str) -> str:
    """The name of a shard's rejected rows."""
    return f"{STATE}/rejects/rejects-{shard.index:07d}-{shard.unit[:8]}-{fingerprint[:8]}.parquet"


def visible(names: Iterable[str]) -> list[str]:
    """The names that readers of the folder see: those without a leading `_` or `.`."""
    return [name for name in names if not HIDDEN.search(name)]


def run_record(
    bundle_digest: str,
    plan: ShardPlan,
    options: Mapping[str, Any],
    kept: pa.Schema = NOTHING_KEPT,
) -> dict[str, Any]:
    """What `run.json` holds: the parts of the run's identity, and their fingerprint.

    Two runs with the same fingerprint write the same rows under the same names.

    Args:
        kept: names and types of the kept columns. They stand there twice: to be read, and, as
            Arrow's own bytes, to be used without opening the input again. These may differ from
            one pyarrow to the next and therefore are no part of the fingerprint.
    """
    parts = {
        "format_version": RUN_FORMAT,
        "bundle_digest": bundle_digest,
        "plan_digest": plan.digest,
        "options": dict(options),
        "kept": _in_words(kept),
    }
    return {
        **parts,
        "fingerprint": hashlib.sha256(to_json(parts)).hexdigest(),
        "kept_schema": base64.b64encode(kept.serialize().to_pybytes()).decode(),
    }


def _in_words(kept: pa.Schema) -> list[str]:
    return [f"{field.name}: {field.type}" for field in kept]


def check_same_run(
    url: str, found: Mapping[str, Any], bundle_digest: str, options: Mapping[str, Any]
) -> None:
    """Compare the run that an output belongs to with the one that was asked for.

    Raises:
        OutputConflictError: another format, bundle or option; every difference is listed.
    """
    wanted = {"format_version": RUN_FORMAT, "bundle_digest": bundle_digest}
    lines = [
        f"{name}: the output has {found.get(name)}, this command {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]
    before = found.get("options", {})
    lines += [
        f"{name}: the output has {json.dumps(before.get(name))}, this command "
        f"{json.dumps(options.get(name))}"
        for name in dict.fromkeys([*options, *before])
        if before.get(name) != options.get(name)
    ]
    if lines:
        raise OutputConflictError(
            f"{url} belongs to another run; {len(lines)} difference(s):\n  "
            + "\n  ".join(lines)
            + "\nUse the same bundle and options to continue it, or another --output."
        )


def to_json(value: Mapping[str, Any]) -> bytes:
    """The one spelling of a JSON object here, so that equal values have equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=1) + "\n").encode()
