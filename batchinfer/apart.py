"""Input and output kept apart: predictions among the inputs would be scored by the next run."""

from __future__ import annotations

import os
from typing import Sequence

from batchinfer.errors import InputError
from batchinfer.inputs import takes
from batchinfer.options import ScoreOptions
from batchinfer.run_folder import RunFolder
from batchinfer.storage import ObjectInfo, Store, open_store


def check_apart(
    options: ScoreOptions, folder: RunFolder, inputs: Sequence[tuple[Store, ObjectInfo]]
) -> None:
    """Compare what the inputs name, globs included, with where the output lies, links resolved.

    Raises:
        InputError: a prediction would be taken as input, or an input lies in the output folder.
    """
    output = _real(folder.store, folder.path)
    part = output.rstrip("/") + "/part-0000000.parquet"
    for url in options.inputs:
        store, path = open_store(url, options.storage_options)
        if store.prefix == folder.store.prefix and takes(_real(store, path), part):
            raise InputError(
                f"input {url} and output {options.output} lie inside each other: the predictions "
                "would be input of the next run; expected them in a folder of their own"
            )
    for store, info in inputs:
        inside = _real(store, info.path).startswith(output.rstrip("/") + "/")
        if store.prefix == folder.store.prefix and inside:
            raise InputError(
                f"input {store.url(info.path)} and output {options.output} lie inside each other; "
                "expected the predictions in a folder of their own"
            )


def _real(store: Store, path: str) -> str:
    """The path with links resolved, where there are links; wildcards stay as they are."""
    return path if store.prefix else os.path.realpath(path)
