"""S3 and stores that speak its API, through the client that s3fs sets up.

s3fs gives credentials, session and event loop; the calls are made on its client, because
s3fs 2023.1 retries on its own (up to 125 requests for one read), hides error codes, and
silently ignores the condition that makes a create exclusive.

File systems come from fsspec's cache of instances and so are never collected: the finalizer of
s3fs and gcsfs 2023.1, when the collector runs it on fsspec's own I/O thread, waits there for
that thread, and stops all storage of the process for 5 s.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

import aiohttp
import botocore.exceptions
import botocore.parsers
import fsspec
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
MARK = "x-amz-meta-create-only"
MISSING_CODES = {"404", "NoSuchKey", "NotFound"}
CHANGED_CODES = {"412", "PreconditionFailed"}
PASSING_CODES = {
    "RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "Throttling",
    "ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody",
}  # fmt: skip
PASSING_ERRORS = (
    botocore.exceptions.HTTPClientError,
    botocore.exceptions.ConnectionError,
    botocore.exceptions.IncompleteReadError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.MetadataRetrievalError,
    botocore.parsers.ResponseParserError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    OSError,
)
HINTS = {
    "NoSuchBucket": "the bucket does not exist, or this endpoint does not have it",
    "AccessDenied": "the credentials may not do this; check the role or the bucket policy",
    "403": "the credentials may not do this; check the role or the bucket policy",
    "ExpiredToken": "the credentials have expired; renew them and run the same command again",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it and run the same command again",
    "InvalidAccessKeyId": "the access key is not known to this endpoint",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
}


class S3Store(Store):
    """A bucket store. `create` is a PutObject with `If-None-Match: *`.

    Args:
        options: of `s3fs.S3FileSystem`; AWS_ENDPOINT_URL is honoured when they name no endpoint.
    """

    prefix = "s3://"

    def __init__(self, options: Mapping[str, Any], retry: Retry) -> None:
        super().__init__(retry)
        try:
            self._fs = fsspec.filesystem("s3", **_filesystem_options(options))
            self._client = sync(self._fs.loop, self._fs.set_session)
        except (botocore.exceptions.BotoCoreError, TypeError, ValueError) as error:
            raise StorageError(f"s3://: {error}") from error
        # botocore of 2022 has no IfNoneMatch parameter; a header mark becomes the condition.
        self._client.meta.events.register(
            "before-call.s3.PutObject", _mark_to_condition, unique_id="batchinfer-create-only"
        )

    def info(self, path: str) -> Optional[ObjectInfo]:
        bucket, _, key = path.partition("/")
        if not key:
            return None
        try:
            found = self._call("head_object", path, Bucket=bucket, Key=key)
        except ObjectNotFoundError:
            return None
        return ObjectInfo(path, found["ContentLength"], found["ETag"].strip('"'))

    def list(self, path: str) -> Iterator[ObjectInfo]:
        bucket, _, key = path.partition("/")
        arguments: Dict[str, Any] = {
            "Bucket": bucket,
            "Prefix": key.rstrip("/") + "/" if key else "",
        }
        while True:
            page = self._call("list_objects_v2", path, **arguments)
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # a "folder" made by a console
                    name = f"{bucket}/{entry['Key']}"
                    yield ObjectInfo(name, entry["Size"], entry["ETag"].strip('"'))
            if not page.get("IsTruncated"):
                return
            arguments["ContinuationToken"] = page["NextContinuationToken"]

    def read(
        self, path: str, start: int = 0, end: Optional[int] = None, version: Optional[str] = None
    ) -> bytes:
        bucket, _, key = path.partition("/")
        arguments: Dict[str, Any] = {"Bucket": bucket, "Key": key}
        if version is not None:
            arguments["IfMatch"] = f'"{version}"'
        if end is not None and end <= start:  # no range can say that
            self._call("head_object", path, **arguments)
            return b""
        if start or end is not None:
            arguments["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        try:
            return bytes(self._call("get_object", path, **arguments)["Body"])
        except _PastTheEndError:
            return b""

    def create(self, path: str, data: Any) -> bool:
        if not self.exclusive and self.info(path) is not None:
            return False
        try:
            self._put(path, bytes(data), Metadata={"create-only": "1"})
        except ObjectChangedError:
            return False
        return True

    def put(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def _put(self, path: str, data: bytes, **arguments: Any) -> None:
        bucket, _, key = path.partition("/")
        digest = base64.b64encode(hashlib.md5(data).digest()).decode()
        self._call(
            "put_object", path, Bucket=bucket, Key=key, Body=data, ContentMD5=digest, **arguments
        )

    def delete(self, path: str) -> None:
        bucket, _, key = path.partition("/")
        self._call("delete_object", path, Bucket=bucket, Key=key)

    def _call(self, method: str, path: str, **arguments: Any) -> Dict[str, Any]:
        function = getattr(self._client, method)

        def once() -> Dict[str, Any]:
            with _reported(f"{method} {self.url(path)}"):
                return sync(self._fs.loop, _request, function, arguments, timeout=REQUEST_TIMEOUT_S)

        return self.retry.call(once)


class _PastTheEndError(StorageError):
    """A range that begins at or after the last byte; the answer to it is no bytes."""


async def _request(function: Callable[..., Any], arguments: Dict[str, Any]) -> Dict[str, Any]:
    """One request with its whole body, so that a body that breaks off is retried as well."""
    response = dict(await function(**arguments))
    if "Body" in response:
        async with response["Body"] as body:
            response["Body"] = await body.read()
        if len(response["Body"]) != response["ContentLength"]:
            raise ConnectionError(
                f"the body broke off after {len(response['Body'])} of "
                f"{response['ContentLength']} bytes"
            )
    return response


@contextlib.contextmanager
def _reported(what: str) -> Iterator[None]:
    """The failure of a request as the error that says what the caller can do."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise _client_error(what, error.response) from error
    except PASSING_ERRORS as error:
        text = f"{what}: {type(error).__name__}: {error}".rstrip(": ")
        if "CERTIFICATE_VERIFY_FAILED" in text:
            raise StorageError(f"{text} (this machine does not trust the endpoint)") from error
        raise TransientStorageError(text) from error
    except botocore.exceptions.BotoCoreError as error:
        raise StorageError(f"{what}: {error}") from error


def _client_error(what: str, response: Mapping[str, Any]) -> StorageError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{what}: {code or status} {response.get('Error', {}).get('Message', '')}".rstrip()
    if code in CHANGED_CODES or status == 412:
        return ObjectChangedError(text)
    if code == "InvalidRange" or status == 416:
        return _PastTheEndError(text)
    if code in MISSING_CODES:
        return ObjectNotFoundError(text)
    if code in PASSING_CODES or status in (409, 429) or status >= 500:
        return TransientStorageError(text)
    hint = HINTS.get(code)
    return StorageError(f"{text} ({hint})" if hint else text)


def _mark_to_condition(params: Dict[str, Any], **_: Any) -> None:
    if params["headers"].pop(MARK, None) is not None:
        params["headers"]["If-None-Match"] = "*"


def _filesystem_options(options: Mapping[str, Any]) -> Dict[str, Any]:
    """The user's options over ours: no second layer of retries, real timeouts, fresh listings."""
    client = dict(options.get("client_kwargs") or {})
    named = (os.environ.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    endpoint = options.get("endpoint_url") or next(filter(None, named), None)
    if endpoint:
        client.setdefault("endpoint_url", endpoint)
    config = {
        "retries": {"max_attempts": 0},
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        **(options.get("config_kwargs") or {}),
    }
    rest = {name: value for name, value in options.items() if name != "endpoint_url"}
    return {
        **rest,
        "client_kwargs": client,
        "config_kwargs": config,
        "use_listings_cache": False,
    }
