"""The commit of a shard: the create of one whole object under its deterministic name.

Rejected rows are made first, so that a visible part never lacks its rejects. Exists already:
another attempt was faster, or an answer got lost; the footer tells whether it is this shard.
"""

from __future__ import annotations

from typing import Any, Optional

from batchinfer.errors import CommitError, ShardError
from batchinfer.footer import read_object_metadata
from batchinfer.ledger import ShardRecord
from batchinfer.plan import Shard
from batchinfer.prediction_writer import object_metadata, rejects_object
from batchinfer.rejects import Rejects
from batchinfer.run_folder import RunFolder, part_name, rejects_name
from batchinfer.storage import ObjectInfo


def commit_shard(
    folder: RunFolder,
    fingerprint: str,
    shard: Shard,
    data: Any,
    rejects: Rejects,
) -> ShardRecord:
    """Create a shard's object, its rejects before it.

    Args:
        data: the whole Parquet object, a buffer; its rows and the rejects are the shard's rows.

    Raises:
        CommitError: the name is taken by something that is not this shard of this run.
    """
    if rejects.num_rows:
        name = rejects_name(shard, fingerprint)
        found = rejects_object(rejects, object_metadata(shard, fingerprint))
        if not folder.store.create(folder.at(name), found):
            _check_ours(folder, fingerprint, shard, name, rejects.num_rows)
    name = part_name(shard, fingerprint)
    created = folder.store.create(folder.at(name), data)
    if not created:
        return adopt(folder, fingerprint, shard)
    rows = shard.num_rows - rejects.num_rows
    return ShardRecord(shard.index, name, len(data), rows, rejects.num_rows)


def adopt(
    folder: RunFolder, fingerprint: str, shard: Shard, info: Optional[ObjectInfo] = None
) -> ShardRecord:
    """Count an object that lies there already as the shard's, after reading its footer.

    Raises:
        CommitError: it is not this shard of this run.
    """
    name = part_name(shard, fingerprint)
    info = info or folder.store.info(folder.at(name))
    if info is None:
        raise CommitError(f"{folder.url}/{name} was refused as existing, and then was not there")
    rows = _check_ours(folder, fingerprint, shard, name, None, info)
    return ShardRecord(shard.index, name, info.size, rows, shard.num_rows - rows, adopted=True)


def _check_ours(
    folder: RunFolder,
    fingerprint: str,
    shard: Shard,
    name: str,
    expected_rows: Optional[int],
    info: Optional[ObjectInfo] = None,
) -> int:
    """The rows of an existing object, once it is known to be this shard of this run."""
    info = info or folder.store.info(folder.at(name))
    if info is None:
        raise CommitError(f"{folder.url}/{name} was refused as existing, and then was not there")
    try:
        words, rows = read_object_metadata(folder.store, info)
    except ShardError as error:
        raise CommitError(str(error)) from error
    wanted = {"batchinfer.fingerprint": fingerprint, "batchinfer.unit": shard.unit}
    differs = {key: words.get(key) for key, value in wanted.items() if words.get(key) != value}
    if differs or expected_rows not in (None, rows) or rows > shard.num_rows:
        raise CommitError(
            f"{folder.url}/{name} exists and is not what this run writes: expected {wanted} and "
            f"{expected_rows if expected_rows is not None else shard.num_rows} rows, found "
            f"{differs or 'the same names'} and {rows} rows"
        )
    return rows
