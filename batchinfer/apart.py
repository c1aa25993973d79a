"""Input and output kept apart: predictions among the inputs would be scored by the next run."""

from __future__ import annotations

import os
from typing import AbstractSet, Optional, Sequence

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
    resolve = _Links().resolve
    for store, info in inputs:
        if store.prefix != folder.store.prefix:
            continue
        path = info.path if store.prefix else resolve(info.path)
        if path.startswith(output.rstrip("/") + "/"):
            raise InputError(
                f"input {store.url(info.path)} and output {options.output} lie inside each other; "
                "expected the predictions in a folder of their own"
            )


class _Links:
    """Resolves the links in many local paths: each folder is looked at once.

    `os.path.realpath` alone asks for every part of every path: 5 s for 100,000 files.
    """

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, Optional[AbstractSet[str]]]] = {}

    def resolve(self, path: str) -> str:
        """`os.path.realpath` of a path that is absolute already."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder or "/"), _links_in(folder or "/")
        real, links = self._folders[folder]
        if links is None or name in links:
            return os.path.realpath(path)
        return f"{real.rstrip('/')}/{name}"


def _links_in(folder: str) -> Optional[AbstractSet[str]]:
    """The names in a folder that are links; None when it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except OSError:  # a file that is named itself may lie in a folder that cannot be read
        return None


def _real(store: Store, path: str) -> str:
    """The path with links resolved, where there are links; wildcards stay as they are."""
    return path if store.prefix else os.path.realpath(path)
