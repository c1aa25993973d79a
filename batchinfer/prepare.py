"""All that can be found out before an actor starts: model, input, output, plan, what is done.

Nothing is written here but a probe object that is removed again.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

from batchinfer.apart import check_apart
from batchinfer.bundle import Bundle
from batchinfer.bundle_cache import local_bundle
from batchinfer.done import what_is_done
from batchinfer.errors import (
    BundleError,
    InputError,
    OutputConflictError,
    StorageError,
    TransientStorageError,
)
from batchinfer.hooks import Hook
from batchinfer.input_files import check_files, read_footers
from batchinfer.inputs import list_inputs
from batchinfer.ledger import ShardRecord
from batchinfer.options import FaultOptions, ScoreOptions
from batchinfer.outputs import Outputs, choose_outputs
from batchinfer.plan import ShardPlan, check_unchanged, make_plan
from batchinfer.postprocess import Postprocess, declared
from batchinfer.preprocess import Preprocess
from batchinfer.run_folder import (
    STATE,
    SUCCESS,
    RunFolder,
    check_same_run,
    kept_columns,
    run_record,
    visible,
)
from batchinfer.schema import Columns, choose_columns, complete
from batchinfer.scorer import choose_batch_rows
from batchinfer.signature import Signature
from batchinfer.storage import ObjectInfo, Retry, Store, open_store

LOG = logging.getLogger("batchinfer")
WARNINGS_SHOWN = 20  # of files that do not fit; quarantine.json has all


@dataclass(frozen=True)
class PreparedRun:
    """A run that can start.

    Attributes:
        bundle, columns, folder, plan: opened and checked against each other.
        bundle_url: where every actor finds the bundle: an absolute path or a URL.
        run: what `run.json` holds, or will hold.
        started_before: `run.json` is there already.
        done: shards that are committed; `adopted` those of them that the ledger did not know.
        finished: `_SUCCESS` is there.
        exclusive: the output store refuses a taken name.
    """

    bundle: Bundle
    bundle_url: str
    columns: Columns
    folder: RunFolder
    plan: ShardPlan
    run: Mapping[str, Any]
    started_before: bool
    done: Mapping[int, ShardRecord]
    adopted: tuple[ShardRecord, ...]
    finished: bool
    exclusive: bool

    @property
    def fingerprint(self) -> str:
        return str(self.run["fingerprint"])


def prepare(options: ScoreOptions, faults: FaultOptions) -> PreparedRun:
    """Open, list, read footers, plan, and compare with what the output holds.

    Raises:
        InputError: of any kind; nothing was written.
    """
    retry = Retry(faults.retry_budget_s)
    bundle = _open_bundle(options, retry)
    bundle_store, bundle_path = open_store(options.bundle, options.storage_options, retry)
    bundle_url = bundle_store.url(bundle_path)
    choose_batch_rows(bundle.signature, options.batch_rows)
    preprocess = _find_preprocess(bundle.signature, options)
    outputs = _choose_outputs(bundle.signature, options, retry)
    store, path = open_store(options.output, options.storage_options, retry)
    folder = RunFolder(store, path)
    inputs = list_inputs(options.inputs, options.storage_options, retry)
    check_apart(options, folder, inputs)
    listing = folder.list()
    result_options = {**options.result_options(), **outputs.result_options}
    if preprocess is not None:
        result_options["preprocess_sha256"] = preprocess.hook.sha256
    run = folder.read_json(f"{STATE}/run.json")
    started_before = run is not None
    if run is None:
        _check_empty(folder, listing)
        columns, plan = _plan(bundle.signature, inputs, options, outputs, preprocess)
        run = run_record(bundle.digest, plan, result_options, columns.kept)
        done: dict[int, ShardRecord] = {}
        adopted: tuple[ShardRecord, ...] = ()
    else:
        check_same_run(folder.url, run, bundle.digest, result_options)
        by_input = complete(bundle.signature, options.columns)
        kept = kept_columns(folder.url, run)
        columns = Columns(bundle.signature, by_input, kept, outputs, preprocess)
        plan = folder.read_plan(run)
        found = [(s.url(i.path), i.size, i.version) for s, i in inputs]
        check_unchanged(plan, found)
        done, adopted = what_is_done(folder, plan, str(run["fingerprint"]), listing)
    return PreparedRun(
        bundle, bundle_url, columns, folder, plan, run, started_before, done, adopted,
        finished=SUCCESS in listing, exclusive=_probe(folder),
    )  # fmt: skip


def _open_bundle(options: ScoreOptions, retry: Retry) -> Bundle:
    def open_url(url: str) -> tuple[Store, str]:
        return open_store(url, options.storage_options, retry)

    bundle = Bundle.open(local_bundle(options.bundle, open_url))
    if not bundle.parity_passed and not options.allow_unproven:
        raise BundleError(
            f"bundle {options.bundle} has no passed parity report: nothing proves that it computes "
            "what the TPU model did. Convert it again with --reference, or score it all the same "
            "with --allow-unproven."
        )
    return bundle


def _find_preprocess(signature: Signature, options: ScoreOptions) -> Optional[Preprocess]:
    if options.hooks.preprocess is None:
        return None
    columns = options.hooks.preprocess_columns
    by_input = complete(signature, options.columns)
    return Preprocess(
        Hook.find("--preprocess", options.hooks.preprocess),
        columns or tuple(dict.fromkeys(by_input.values())),
    )


def _find_postprocess(signature: Signature, options: ScoreOptions) -> Optional[Postprocess]:
    if options.hooks.postprocess is None:
        return None
    hook = Hook.find("--postprocess", options.hooks.postprocess)
    takes = options.hooks.postprocess_outputs or tuple(one.name for one in signature.outputs)
    return Postprocess(hook, takes, declared(hook))


def _choose_outputs(signature: Signature, options: ScoreOptions, retry: Retry) -> Outputs:
    def read(file: str) -> bytes:
        store, path = open_store(file, options.storage_options, retry)
        return store.read(path)

    postprocess = _find_postprocess(signature, options)
    return choose_outputs(signature, options.outputs, options.keep, read, postprocess)


def _plan(
    signature: Signature,
    inputs: Sequence[tuple[Store, ObjectInfo]],
    options: ScoreOptions,
    outputs: Outputs,
    preprocess: Optional[Preprocess],
) -> tuple[Columns, ShardPlan]:
    """Every footer -> which columns are read, their types, and the shards."""
    by_input = complete(signature, options.columns)
    read = [*(preprocess.columns if preprocess else by_input.values()), *options.keep]
    files = read_footers(inputs, read)
    readable = [(file.url, file.schema) for file in files if file.schema is not None]
    if not readable:
        raise InputError(
            f"none of the {len(files)} input files is readable Parquet, such as {files[0].url}: "
            f"{files[0].problem}"
        )
    columns = choose_columns(
        signature, options.columns, options.keep, readable, outputs, preprocess
    )
    files = check_files(files, columns.problem)
    for file in [file for file in files if file.problem][:WARNINGS_SHOWN]:
        LOG.warning("%s will be quarantined: %s", file.url, file.problem)
    return columns, make_plan(files, options.shard_bytes)


def _check_empty(folder: RunFolder, listing: Mapping[str, ObjectInfo]) -> None:
    strays = sorted(visible(listing)) + [name for name in (SUCCESS,) if name in listing]
    if strays:
        raise OutputConflictError(
            f"{folder.url} holds {len(strays)} object(s) that no run of batchinfer put there, such "
            f"as {strays[0]}; expected an empty folder or one that a run was started in"
        )


def _probe(folder: RunFolder) -> bool:
    """Whether the output can be written, and refuses a taken name.

    Raises:
        InputError: it cannot be written.
    """
    try:
        exclusive = folder.store.creates_exclusively(folder.at(f"{STATE}/probe"), uuid.uuid4().hex)
    except TransientStorageError:
        raise
    except StorageError as error:
        raise InputError(f"output {folder.url} cannot be written: {error}") from error
    if not exclusive:
        LOG.warning(
            "%s does not refuse to overwrite an existing object; make sure that only one run "
            "writes there",
            folder.url,
        )
    return exclusive
