"""A bundle in object storage -> a local folder that TensorFlow loads, fetched once a machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from typing import Callable

from batchinfer.errors import BundleError
from batchinfer.storage import ObjectInfo, Store

READ_BYTES = 64 << 20  # of a variables file at once


def local_bundle(url: str, open_store: Callable[[str], tuple[Store, str]]) -> str:
    """The bundle's local folder: where it lies already, or a copy under the temporary folder.

    The copy is named after the listing (names, sizes, versions), so that a bundle that was
    replaced is fetched anew; it appears in one step, so that actors of one machine may race.
    What was fetched is checked by `Bundle.open`, as any bundle.

    Raises:
        BundleError: nothing lies there.
    """
    store, path = open_store(url)
    if not store.prefix:  # a local disk
        return path
    listing = {info.path[len(path) :].lstrip("/"): info for info in store.list(path)}
    if not listing:
        raise BundleError(f"no bundle at {url}: nothing lies there")
    lines = [f"{name}\t{info.size}\t{info.version}\n" for name, info in sorted(listing.items())]
    key = hashlib.sha256("".join([url, *lines]).encode()).hexdigest()[:32]
    target = os.path.join(tempfile.gettempdir(), f"batchinfer-bundles-{os.getuid()}", key)
    if not os.path.isdir(target):
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        _fetch(store, listing, target)
    return target


def _fetch(store: Store, listing: dict[str, ObjectInfo], target: str) -> None:
    temporary = tempfile.mkdtemp(prefix=".fetch-", dir=os.path.dirname(target))
    try:
        for name, info in listing.items():
            if os.path.isabs(name) or ".." in name.split("/"):
                raise BundleError(f"{store.url(info.path)} points out of the bundle's folder")
            _copy(store, info, os.path.join(temporary, *name.split("/")))
        try:
            os.rename(temporary, target)
        except OSError:
            if not os.path.isdir(target):
                raise  # else another actor of this machine was faster
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(store: Store, info: ObjectInfo, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "wb") as file:
        for start in range(0, info.size, READ_BYTES):
            end = min(start + READ_BYTES, info.size)
            file.write(store.read(info.path, start, end, info.version))
