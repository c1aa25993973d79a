from __future__ import annotations

import pytest

from batchinfer.storage import open_store
from tests.storage.contract import Folders, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def folders(self) -> Folders:
        return Folders(lambda: open_store("memory://bucket"))
