from __future__ import annotations

import pytest

from batchinfer.storage import open_store
from tests.storage.conftest import QUICK
from tests.storage.contract import Folders, StoreContract
from tests.storage.fake_gcs import FakeGcs

# google-auth imports cryptography, which says on Python 3.7 that it will leave it.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.7 is no longer supported")


def options(url: str) -> dict:
    return {"endpoint_url": url, "token": "anon"}


class TestGcsStore(StoreContract):
    @pytest.fixture(scope="class")
    def folders(self, gcs_server: FakeGcs) -> Folders:
        gcs_server.buckets.setdefault("bucket", {})
        return Folders(lambda: open_store("gs://bucket", options(gcs_server.url), QUICK))
