"""The door to object stores: one `Store` per kind, made from a URL by `open_store`."""

from __future__ import annotations

import os
import unicodedata
from typing import Any, Mapping, Optional, Tuple

from batchinfer.errors import InputError
from batchinfer.storage.retry import Retry
from batchinfer.storage.store import ObjectInfo, RangeReader, Store

__all__ = ["ObjectInfo", "RangeReader", "Retry", "Store", "open_store", "protocol_of"]

PROTOCOLS = {
    "": "local", "file": "local", "memory": "memory",
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs",
}  # fmt: skip


def open_store(
    url: str,
    options: Optional[Mapping[str, Any]] = None,
    retry: Optional[Retry] = None,
) -> Tuple[Store, str]:
    """The store that a URL points into, and the path inside it.

    Args:
        url: a local path, or file://, s3://, gs:// or memory:// (tests; one process only).
        options: arguments of the fsspec file system, such as `client_kwargs`; unused locally.
        retry: how long transient failures are tried again.

    Raises:
        InputError: another protocol, URL chaining (`::`), control characters, no path or
            bucket, or the package for that store is not installed.
        StorageError: the credentials or the endpoint cannot be used.
    """
    protocol = protocol_of(url)
    path = url.partition("://")[2] if "://" in url else url
    retry = retry or Retry()
    if not (path if protocol == "local" else path.strip("/")):
        raise InputError(f"{url!r}: expected a path, or a bucket and a path; found none")
    if protocol == "local":
        from batchinfer.storage.local import LocalStore

        return LocalStore(retry), os.path.abspath(os.path.expanduser(path))
    if protocol == "memory":
        from batchinfer.storage.memory import MemoryStore

        return MemoryStore(retry), path.strip("/")
    try:
        return _open_bucket(protocol, options or {}, retry), path.strip("/")
    except ImportError as error:
        raise InputError(
            f"{url}: {error}; install what this store needs: pip install 'batchinfer[{protocol}]'"
        ) from error


def _open_bucket(protocol: str, options: Mapping[str, Any], retry: Retry) -> Store:
    if protocol == "s3":
        from batchinfer.storage.s3 import S3Store

        return S3Store(options, retry)
    from batchinfer.storage.gcs import GcsStore

    return GcsStore(options, retry)


def protocol_of(url: str) -> str:
    """`local`, `memory`, `s3` or `gcs`."""
    if "::" in url or any(unicodedata.category(char) == "Cc" for char in url):
        raise InputError(
            f"{url!r}: expected one plain path or URL, without `::` or control characters"
        )
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in PROTOCOLS:
        raise InputError(
            f"{url}: expected a local path or a URL that starts with "
            f"{', '.join(name + '://' for name in PROTOCOLS if name)}; found {scheme}://"
        )
    return PROTOCOLS[scheme]
