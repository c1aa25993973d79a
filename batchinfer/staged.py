"""A folder that is there whole or not at all: filled under another name, then moved in one step."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import Iterator, List

from batchinfer.errors import BundleError, OutputConflictError


@contextmanager
def staged(path: str, what: str = "bundle") -> Iterator[str]:
    """Yield a temporary folder beside `path`; it becomes `path` when the block ends well.

    When it does not, nothing is left: neither the temporary folder nor parents made for it.

    Args:
        what: what the folder is, for the messages.

    Raises:
        OutputConflictError: something lies at `path`; it is left as it is.
        BundleError: the folder that shall hold it cannot be written.
    """
    path = os.path.abspath(path)
    refuse_existing(path, what)
    parent = os.path.dirname(path)
    made = _missing_folders(parent)
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix="." + os.path.basename(path) + "-", dir=parent)
    except OSError as error:
        _remove_empty(made)
        raise BundleError(
            f"the {what} cannot be written into {parent}: {error.strerror}; expected a folder that "
            "can be written"
        ) from error
    try:
        yield temporary
        os.chmod(temporary, 0o755)
        refuse_existing(path, what)  # another process may have been faster
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(made)
        raise


def refuse_existing(path: str, what: str = "bundle") -> None:
    """Raise when something lies where a folder is to be written.

    Raises:
        OutputConflictError: with what to do.
    """
    if os.path.lexists(path):
        raise OutputConflictError(
            f"{what} folder {path} exists already and is never overwritten; "
            "remove it or choose another --out"
        )


def _missing_folders(path: str) -> List[str]:
    """Those that would have to be made, the innermost first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _remove_empty(folders: List[str]) -> None:
    """Take made folders away again, unless somebody put something into them."""
    for folder in folders:
        if os.path.isdir(folder) and not os.listdir(folder):
            os.rmdir(folder)
