from __future__ import annotations

import pathlib
from typing import Any, Callable, Iterator, List

import pytest

from batchinfer.errors import StorageError, TransientStorageError
from batchinfer.storage import Retry, open_store
from tests.storage.conftest import NO_RETRY, QUICK
from tests.storage.contract import Folder, Folders, StoreContract
from tests.storage.fake_gcs import FakeGcs
from tests.support.fault_proxy import Fault, FaultProxy, fault_proxy
from tests.support.servers import free_port

Call = Callable[[Folder], Any]

# google-auth imports cryptography, which says on Python 3.7 that it will leave it.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.7 is no longer supported")


def options(url: str) -> dict:
    return {"endpoint_url": url, "token": "anon"}


class TestGcsStore(StoreContract):
    @pytest.fixture(scope="class")
    def folders(self, gcs_server: FakeGcs) -> Folders:
        gcs_server.buckets.setdefault("bucket", {})
        return Folders(lambda: open_store("gs://bucket", options(gcs_server.url), QUICK))


@pytest.fixture
def proxy(gcs_server: FakeGcs) -> Iterator[FaultProxy]:
    with fault_proxy(gcs_server.url) as proxy:
        yield proxy


@pytest.fixture
def folder(gcs_server: FakeGcs, proxy: FaultProxy) -> Folder:
    """A folder behind the proxy, with nothing asked yet."""
    gcs_server.buckets.setdefault("bucket", {})
    return Folders(lambda: open_store("gs://bucket", options(proxy.url), QUICK)).fresh()


CALLS = [  # a call, the requests it makes when nothing fails, and what it gives
    (lambda folder: folder.store.info(folder.at("x")).size, ["GET"], 4),
    (lambda folder: len(list(folder.store.list(folder.path))), ["GET"], 1),
    (lambda folder: folder.store.read(folder.at("x"), 1, 3), ["GET"], b"at"),
    (lambda folder: folder.store.create(folder.at("new"), b"data"), ["POST"], True),
    (lambda folder: folder.store.put(folder.at("x"), b"other"), ["POST"], None),
    (lambda folder: folder.store.delete(folder.at("x")), ["DELETE"], None),
]


@pytest.mark.parametrize("call, methods, expected", CALLS)
@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503])
def test_a_burst_of_failures_costs_as_many_requests_and_no_more(
    folder: Folder,
    proxy: FaultProxy,
    call: Call,
    methods: List[str],
    expected: object,
    status: int,
) -> None:
    folder.created("x")
    del proxy.requests[:]
    failures = 3 if status else 0
    proxy.faults.append(Fault(failures, status=status))
    assert expected == call(folder)
    assert methods * (failures + 1) == [method for method, _ in proxy.requests]


@pytest.mark.parametrize("call, methods, expected", CALLS)
@pytest.mark.parametrize("fault", [{"status": 503}, {"after": True}])
def test_no_client_tries_again_behind_our_back(
    proxy: FaultProxy, call: Call, methods: List[str], expected: object, fault: dict
) -> None:
    store, path = open_store("gs://bucket", options(proxy.url), NO_RETRY)
    proxy.faults.append(Fault(9, **fault))
    with pytest.raises(TransientStorageError, match="given up after 1 try"):
        call(Folder(store, path, lambda: store))
    asked = [method for method, _ in proxy.requests]
    # aiohttp 3.10 and later repeats GET, HEAD, PUT and DELETE once when a connection is dropped.
    assert asked == methods or ("after" in fault and asked == methods * 2)


def test_a_create_whose_answer_is_lost_is_false_and_the_object_is_ours(
    folder: Folder, proxy: FaultProxy
) -> None:
    proxy.faults.append(Fault(1, method="POST", after=True))
    assert False is folder.store.create(folder.at("part"), b"ours")
    assert folder.store.read(folder.at("part")) == b"ours"
    assert [method for method, _ in proxy.requests] == ["POST", "POST", "GET"]


def test_a_body_that_breaks_off_is_read_again(folder: Folder, proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 8
    info = folder.created("x", data)
    del proxy.requests[:]
    proxy.faults.append(Fault(2, method="GET", keep_bytes=100))
    assert data[10:1000] == folder.store.read(info.path, 10, 1000, info.version)
    assert len(proxy.requests) == 3


@pytest.mark.parametrize(
    "status, hint",
    [
        (401, "no credentials were found, or they have expired"),
        (403, "the credentials may not do this"),
        (400, "HTTP 400 <Error>"),
    ],
)
def test_what_no_retry_mends_is_said_after_one_request(
    folder: Folder, proxy: FaultProxy, status: int, hint: str
) -> None:
    proxy.faults.append(Fault(1, status=status, code="invalid"))
    with pytest.raises(
        StorageError, match=f"{folder.path}/x: HTTP {status} .*{hint}|{hint}"
    ) as caught:
        folder.store.create(folder.at("x"), b"data")
    assert (StorageError, 1) == (type(caught.value), len(proxy.requests))


@pytest.mark.parametrize(
    "status, answer, kind",
    [
        (403, b'{"error": {"message": "m", "errors": [{"reason": "rateLimitExceeded"}]}}', True),
        (403, b'{"error": {"message": "m", "errors": [{"reason": "forbidden"}]}}', False),
        (403, b'{"error": {"message": "m"}}', False),
        (503, b'{"error": "invalid"}', True),  # no message inside; the status counts
        (503, b"\xff<html>invalid</html>", True),
        (500, b"", True),
        (412, b"", False),
    ],
)
def test_an_answer_says_whether_to_try_again(status: int, answer: bytes, kind: bool) -> None:
    from batchinfer.storage.gcs import http_error  # imports google-auth, which warns

    error = http_error("GET gs://b/k", status, answer)
    assert kind is isinstance(error, TransientStorageError)
    assert str(error).startswith(f"GET gs://b/k: HTTP {status}")


def test_a_bucket_that_is_not_there_is_named(gcs_server: FakeGcs) -> None:
    store, path = open_store("gs://no-such-bucket/x", options(gcs_server.url))
    for call in (
        lambda: store.read(path),
        lambda: store.info(path),
        lambda: store.create(path, b"data"),
        lambda: list(store.list(path)),
    ):
        with pytest.raises(
            StorageError, match=r"no-such-bucket.*the bucket does not exist"
        ) as caught:
            call()
        assert StorageError is type(caught.value)


def test_an_endpoint_that_is_down_is_tried_for_the_budget() -> None:
    retry = Retry(budget_s=0.5, first_s=0.1, longest_s=0.1)
    url = f"http://127.0.0.1:{free_port()}"
    store, path = open_store("gs://bucket/x", options(url), retry)
    with pytest.raises(TransientStorageError, match=r"/x: .*given up after .* tries"):
        store.read(path)


def test_a_token_that_cannot_be_read_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token.json").write_text("{}")
    with pytest.raises(StorageError, match="gs://: "):
        open_store("gs://bucket", {"token": str(tmp_path / "token.json")})
    with pytest.raises(StorageError, match=r"gs://: .*missing\.json"):
        open_store("gs://bucket", {"token": str(tmp_path / "missing.json")}, NO_RETRY)


def test_requester_pays_is_sent_along(gcs_server: FakeGcs, proxy: FaultProxy) -> None:
    gcs_server.buckets.setdefault("bucket", {})
    paid = {**options(proxy.url), "requester_pays": "my-project"}
    store, path = open_store("gs://bucket/x", paid, QUICK)
    assert None is store.info(path)
    assert "userProject=my-project" in proxy.requests[0][1]
