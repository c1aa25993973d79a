from __future__ import annotations

import re
import socket
import time
import uuid
from typing import Any, Callable, List

import pytest

from batchinfer.errors import StorageError, TransientStorageError
from batchinfer.storage import Retry, open_store
from tests.storage.conftest import NO_RETRY, QUICK
from tests.storage.contract import Folder, Folders, StoreContract
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.servers import free_port, make_bucket

Call = Callable[[Folder], Any]


def s3_folders(endpoint: str) -> Folders:
    bucket = make_bucket(endpoint, f"bucket-{uuid.uuid4().hex}")
    return Folders(lambda: open_store(f"s3://{bucket}", {"endpoint_url": endpoint}, QUICK))


class TestConditionalS3Store(StoreContract):
    listed = 1005  # a page holds 1000

    @pytest.fixture(scope="class")
    def folders(self, conditional_endpoint: str) -> Folders:
        return s3_folders(conditional_endpoint)


class TestPlainS3Store(StoreContract):
    """A store behind the S3 API that ignores `If-None-Match`."""

    exclusive = False

    @pytest.fixture(scope="class")
    def folders(self, plain_endpoint: str) -> Folders:
        folders = s3_folders(plain_endpoint)
        folders.store.exclusive = False  # as the driver's probe finds, and tells the actors
        return folders


@pytest.fixture
def folder(proxy: FaultProxy, bucket: str) -> Folder:
    """A folder behind the proxy, with nothing asked yet."""
    options = {"endpoint_url": proxy.url}
    return Folders(lambda: open_store(f"s3://{bucket}", options, QUICK)).fresh()


CALLS = [  # a call, the requests it makes when nothing fails, and what it gives
    (lambda folder: folder.store.info(folder.at("x")).size, ["HEAD"], 4),
    (lambda folder: len(list(folder.store.list(folder.path))), ["GET"], 1),
    (lambda folder: folder.store.read(folder.at("x")), ["GET"], b"data"),
    (lambda folder: folder.store.read(folder.at("x"), 1, 3), ["GET"], b"at"),
    (lambda folder: folder.store.create(folder.at("new"), b"data"), ["PUT"], True),
    (lambda folder: folder.store.put(folder.at("x"), b"other"), ["PUT"], None),
    (lambda folder: folder.store.delete(folder.at("x")), ["DELETE"], None),
]


@pytest.mark.parametrize("call, methods, expected", CALLS)
def test_a_call_is_one_request(
    folder: Folder, proxy: FaultProxy, call: Call, methods: List[str], expected: object
) -> None:
    folder.created("x")
    del proxy.requests[:]
    assert expected == call(folder)
    assert methods == [method for method, _ in proxy.requests]


@pytest.mark.parametrize("call, methods, expected", CALLS)
@pytest.mark.parametrize(
    "status, code",
    [
        (500, "InternalError"),
        (503, "SlowDown"),
        (429, "TooManyRequests"),
        (400, "RequestTimeout"),
        (409, "ConditionalRequestConflict"),
    ],
)
def test_a_burst_of_failures_costs_as_many_requests_and_no_more(
    folder: Folder,
    proxy: FaultProxy,
    call: Call,
    methods: List[str],
    expected: object,
    status: int,
    code: str,
) -> None:
    if methods == ["HEAD"] and status == 400:
        pytest.skip("the answer to HEAD has no body that could name the code")
    folder.created("x")
    del proxy.requests[:]
    proxy.faults.append(Fault(3, status=status, code=code))
    assert expected == call(folder)
    assert methods * 4 == [method for method, _ in proxy.requests]


@pytest.mark.parametrize("call, methods, expected", CALLS)
@pytest.mark.parametrize("fault", [{"status": 503}, {"after": True}])
def test_no_client_tries_again_behind_our_back(
    proxy: FaultProxy, bucket: str, call: Call, methods: List[str], expected: object, fault: dict
) -> None:
    store, path = open_store(f"s3://{bucket}", {"endpoint_url": proxy.url}, NO_RETRY)
    proxy.faults.append(Fault(9, **fault))
    with pytest.raises(TransientStorageError, match="given up after 1 try"):
        call(Folder(store, path, lambda: store))
    asked = [method for method, _ in proxy.requests]
    # aiohttp 3.10 and later repeats GET, HEAD, PUT and DELETE once when a connection is dropped.
    assert asked == methods or ("after" in fault and asked == methods * 2)


@pytest.mark.parametrize("call, methods, expected", CALLS)
def test_a_lost_answer_is_asked_for_again(
    folder: Folder, proxy: FaultProxy, call: Call, methods: List[str], expected: object
) -> None:
    folder.created("x")
    del proxy.requests[:]
    proxy.faults.append(Fault(1, after=True))
    call(folder)
    assert methods * 2 == [method for method, _ in proxy.requests]


def test_a_create_whose_answer_is_lost_is_false_and_the_object_is_ours(
    folder: Folder, proxy: FaultProxy
) -> None:
    proxy.faults.append(Fault(1, method="PUT", after=True))
    assert False is folder.store.create(folder.at("part"), b"ours")
    assert folder.store.read(folder.at("part")) == b"ours"
    assert [method for method, _ in proxy.requests] == ["PUT", "PUT", "GET"]


@pytest.mark.parametrize("start, end", [(0, None), (10, 1000)])
def test_a_body_that_breaks_off_is_read_again(
    folder: Folder, proxy: FaultProxy, start: int, end: int
) -> None:
    data = bytes(range(256)) * 8
    info = folder.created("x", data)
    del proxy.requests[:]
    proxy.faults.append(Fault(2, method="GET", keep_bytes=100))
    assert data[start:end] == folder.store.read(info.path, start, end, info.version)
    assert len(proxy.requests) == 3


def test_a_listing_that_breaks_off_is_asked_for_again(folder: Folder, proxy: FaultProxy) -> None:
    folder.created("x")
    proxy.faults.append(Fault(2, method="GET", keep_bytes=100))
    assert folder.names() == ["x"]


@pytest.mark.parametrize(
    "status, code, hint",
    [
        (403, "AccessDenied", "check the role or the bucket policy"),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
        (403, "InvalidAccessKeyId", "the access key is not known"),
        (403, "SignatureDoesNotMatch", "does not belong to the access key"),
        (400, "ExpiredToken", "the credentials have expired"),
        (404, "NoSuchBucket", "the bucket does not exist"),
    ],
)
def test_what_no_retry_mends_is_said_after_one_request(
    folder: Folder, proxy: FaultProxy, status: int, code: str, hint: str
) -> None:
    proxy.faults.append(Fault(9, status=status, code=code))
    for call in (folder.store.put, folder.store.create):
        del proxy.requests[:]
        message = f"{folder.path}/x: {code} said so .*{hint}"
        with pytest.raises(StorageError, match=message) as caught:
            call(folder.at("x"), b"data")
        assert (StorageError, 1) == (type(caught.value), len(proxy.requests))


def test_a_bucket_that_is_not_there_is_named(conditional_endpoint: str) -> None:
    store, path = open_store("s3://no-such-bucket/x", {"endpoint_url": conditional_endpoint})
    for call in (
        lambda: store.read(path),
        lambda: store.create(path, b"data"),
        lambda: list(store.list(path)),
    ):
        with pytest.raises(StorageError, match=r"no-such-bucket.*the bucket does not exist"):
            call()


def test_an_endpoint_that_is_down_is_tried_for_the_budget(bucket: str) -> None:
    options = {"endpoint_url": f"http://127.0.0.1:{free_port()}"}
    retry = Retry(budget_s=0.5, first_s=0.1, longest_s=0.1)
    store, path = open_store(f"s3://{bucket}/x", options, retry)
    started = time.monotonic()
    with pytest.raises(TransientStorageError) as caught:
        store.read(path)
    assert 0.5 <= time.monotonic() - started < 10
    message = r"get_object s3://bucket-\w+/x: \w+.*; given up after \d+ tries in [0-9]+ s"
    assert re.match(message, str(caught.value))


def test_silence_is_a_timeout(bucket: str) -> None:
    with socket.socket() as silent:  # accepts, and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        options = {
            "endpoint_url": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "config_kwargs": {"read_timeout": 0.3},
        }
        store, path = open_store(f"s3://{bucket}/x", options, NO_RETRY)
        with pytest.raises(TransientStorageError, match="given up after 1 try"):
            store.read(path)


def test_without_credentials_nothing_is_tried_again(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    store, path = open_store(f"s3://{bucket}/x", {"endpoint_url": proxy.url}, QUICK)
    with pytest.raises(StorageError, match="credentials") as caught:
        store.read(path)
    assert (StorageError, 0) == (type(caught.value), len(proxy.requests))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_may_come_from_the_environment(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, proxy.url)
    store, path = open_store(f"s3://{bucket}/x", retry=QUICK)
    assert store.create(path, b"data")
    assert [("PUT", f"/{bucket}/x")] == proxy.requests
