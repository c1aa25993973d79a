"""Google Cloud Storage, through the JSON API with the credentials and session of gcsfs.

The requests are made here and not by `gcsfs.GCSFileSystem.call`, because that tries each one
up to six times on its own, turns a 403 into a plain OSError, and takes any answer with
"invalid" in its text for the caller's mistake.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import uuid
from typing import Any, Iterator, Mapping, Optional, Tuple
from urllib.parse import quote, urlencode

import aiohttp
import fsspec
import google.auth.exceptions
import requests
import yarl
from fsspec.asyn import sync

from batchinfer.errors import (
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    TransientStorageError,
)
from batchinfer.storage.retry import Retry
from batchinfer.storage.store import ObjectInfo, Store

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60  # of silence on one connection
REQUEST_TIMEOUT_S = 900  # of one whole request: a server that drips bytes must not hang a shard
FIELDS = "name,size,generation"
PASSING_STATUSES = {408, 429}
PASSING_REASONS = {"rateLimitExceeded", "userRateLimitExceeded"}  # they came as 403 once
HINTS = {
    401: "no credentials were found, or they have expired; see `token` of gcsfs",
    403: "the credentials may not do this; check the roles on the bucket",
}
NO_BUCKET = "the bucket does not exist, or this project may not know of it"


class GcsStore(Store):
    """A bucket store; the version of an object is its generation.

    Args:
        options: of `gcsfs.GCSFileSystem`, such as `token` or `endpoint_url`.
    """

    prefix = "gs://"

    def __init__(self, options: Mapping[str, Any], retry: Retry) -> None:
        super().__init__(retry)
        with _reported("gs://"):
            try:  # from fsspec's cache of instances, for the reason told in s3.py
                self._fs = fsspec.filesystem("gcs", **{**options, "use_listings_cache": False})
            except (TypeError, ValueError, LookupError, FileNotFoundError) as error:
                raise StorageError(f"gs://: {type(error).__name__}: {error}") from error
            self._session = sync(self._fs.loop, self._fs._set_session)

    def info(self, path: str) -> Optional[ObjectInfo]:
        if "/" not in path:
            return None
        try:
            found = json.loads(self._call("GET", path, _object(path), {"fields": FIELDS}))
        except ObjectNotFoundError:
            return None
        return _info(path.partition("/")[0], found)

    def list(self, path: str) -> Iterator[ObjectInfo]:
        bucket, _, key = path.partition("/")
        params = {"prefix": key.rstrip("/") + "/" if key else ""}
        params["fields"] = f"items({FIELDS}),nextPageToken"
        while True:
            page = json.loads(self._call("GET", path, _objects(path), params))
            for entry in page.get("items", ()):
                if not entry["name"].endswith("/"):  # a "folder" made by a console
                    yield _info(bucket, entry)
            if "nextPageToken" not in page:
                return
            params["pageToken"] = page["nextPageToken"]

    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        pinned = {} if version is None else {"ifGenerationMatch": version}
        if end is not None and end <= start:  # no range can say that
            self._call("GET", path, _object(path), {"fields": FIELDS, **pinned})
            return b""
        headers = {}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        try:
            return self._call("GET", path, _object(path), {"alt": "media", **pinned}, headers)
        except _PastTheEndError:
            return b""

    def create(self, path: str, data: Any) -> bool:
        try:
            self._upload(path, data, {"ifGenerationMatch": "0"})
        except ObjectChangedError:
            return False
        return True

    def put(self, path: str, data: bytes) -> None:
        self._upload(path, data, {})

    def _upload(self, path: str, data: Any, condition: Mapping[str, str]) -> None:
        content_type, body = _multipart(path.partition("/")[2], data)
        params = {"uploadType": "multipart", **condition}
        headers = {"Content-Type": content_type}
        self._call("POST", path, "upload/" + _objects(path), params, headers, body)

    def delete(self, path: str) -> None:
        with contextlib.suppress(ObjectNotFoundError):
            self._call("DELETE", path, _object(path), {})

    def _call(
        self,
        method: str,
        path: str,
        target: str,
        params: Mapping[str, str],
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[bytes] = None,
    ) -> bytes:
        """One request to `target` about `path`; the whole body of its answer."""
        what = f"{method} {self.url(path)}"
        query = urlencode(self._fs._get_params(params), quote_via=quote)
        url = yarl.URL(f"{self._fs._location}/{target}?{query}", encoded=True)

        def once() -> bytes:
            with _reported(what):
                signed = self._fs._get_headers(headers)  # renews the token here, off the loop
                status, answer = sync(
                    self._fs.loop, _request, self._session, method, url, signed, body,
                    timeout=REQUEST_TIMEOUT_S,
                )  # fmt: skip
            if status >= 400:
                raise http_error(what, status, answer)
            return bytes(answer)

        return self.retry.call(once)


class _PastTheEndError(StorageError):
    """A range that begins at or after the last byte; the answer to it is no bytes."""


def _objects(path: str) -> str:
    return f"storage/v1/b/{quote(path.partition('/')[0], safe='')}/o"


def _object(path: str) -> str:
    return f"{_objects(path)}/{quote(path.partition('/')[2], safe='')}"


def _info(bucket: str, entry: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(f"{bucket}/{entry['name']}", int(entry["size"]), str(entry["generation"]))


def _multipart(key: str, data: Any) -> Tuple[str, bytes]:
    """The name and the digest, which the server checks, before the content; RFC 2387."""
    digest = base64.b64encode(hashlib.md5(data).digest()).decode()
    words = json.dumps({"name": key, "md5Hash": digest})
    boundary = uuid.uuid4().hex
    head = (
        f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{words}\r\n"
        f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    body = b"".join([head.encode(), data, f"\r\n--{boundary}--\r\n".encode()])
    return f"multipart/related; boundary={boundary}", body


async def _request(
    session: aiohttp.ClientSession,
    method: str,
    url: yarl.URL,
    headers: Mapping[str, str],
    body: Optional[bytes],
) -> Tuple[int, bytes]:
    """One request with its whole body, so that a body that breaks off is retried as well."""
    limits = aiohttp.ClientTimeout(
        total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
    )
    data = None if body is None else io.BytesIO(body)
    async with session.request(method, url, headers=headers, data=data, timeout=limits) as answer:
        return answer.status, await answer.read()


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """A failure without an answer as the error that says what the caller can do."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise StorageError(f"{what}: {error} (this machine does not trust it)") from error
    except google.auth.exceptions.GoogleAuthError as error:
        kind = TransientStorageError if _passes(error) else StorageError
        raise kind(f"{what}: {type(error).__name__}: {error} (see `token` of gcsfs)") from error
    except (
        aiohttp.ClientError,
        requests.RequestException,
        asyncio.TimeoutError,
        OSError,
    ) as error:
        text = f"{what}: {type(error).__name__}: {error}".rstrip(": ")
        raise TransientStorageError(text) from error


def _passes(error: google.auth.exceptions.GoogleAuthError) -> bool:
    return isinstance(error, google.auth.exceptions.TransportError) or bool(
        getattr(error, "retryable", False)
    )


def http_error(what: str, status: int, answer: bytes) -> StorageError:
    """What a status, and the reason in the answer, mean for the caller."""
    reason, message = _reason(answer)
    text = f"{what}: HTTP {status} {message}".rstrip()
    if status == 412:
        return ObjectChangedError(text)
    if status == 416:
        return _PastTheEndError(text)
    if status == 404:
        if "bucket does not exist" in message:
            return StorageError(f"{text} ({NO_BUCKET})")
        return ObjectNotFoundError(text)
    if status in PASSING_STATUSES or status >= 500 or reason in PASSING_REASONS:
        return TransientStorageError(text)
    return StorageError(f"{text} ({HINTS[status]})" if status in HINTS else text)


def _reason(answer: bytes) -> Tuple[str, str]:
    """The reason and message of an error; a download's errors come as plain text."""
    text = answer.decode("utf-8", "replace").strip()
    try:
        error = json.loads(text)["error"]
        return str(error.get("errors", [{}])[0].get("reason", "")), str(error["message"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return "", text[:200]
