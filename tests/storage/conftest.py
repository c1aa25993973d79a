"""Servers for the store tests, one of each kind per test run, and a fresh bucket per test."""

from __future__ import annotations

import uuid
from typing import Iterator

import pytest

from batchinfer.storage import Retry
from tests.storage.fake_gcs import FakeGcs, fake_gcs
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.servers import CREDENTIALS, conditional_s3, make_bucket, plain_s3

QUICK = Retry(budget_s=30, first_s=0.001, longest_s=0.01)  # a failure costs no test time
NO_RETRY = Retry(budget_s=0)
UNSET = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "STORAGE_EMULATOR_HOST")


@pytest.fixture(scope="session", autouse=True)
def credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        for name in UNSET:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def conditional_endpoint() -> Iterator[str]:
    with conditional_s3() as url:
        yield url


@pytest.fixture(scope="session")
def plain_endpoint() -> Iterator[str]:
    with plain_s3() as url:
        yield url


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[FakeGcs]:
    with fake_gcs() as server:
        yield server


@pytest.fixture
def bucket(conditional_endpoint: str) -> str:
    """A fresh bucket on the conditional server."""
    return make_bucket(conditional_endpoint, f"bucket-{uuid.uuid4().hex}")


@pytest.fixture
def proxy(conditional_endpoint: str) -> Iterator[FaultProxy]:
    """A proxy before the conditional server."""
    with fault_proxy(conditional_endpoint) as proxy:
        yield proxy
