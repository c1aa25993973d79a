from __future__ import annotations

import uuid

import pytest

from batchinfer.storage import open_store
from tests.storage.conftest import QUICK
from tests.storage.contract import Folders, StoreContract
from tests.support.servers import make_bucket


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
