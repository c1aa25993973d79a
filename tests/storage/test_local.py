from __future__ import annotations

import pathlib
import time

import pytest

from batchinfer.storage import open_store
from tests.storage.contract import Folders, StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def folders(self, tmp_path: pathlib.Path) -> Folders:
        return Folders(lambda: open_store(str(tmp_path)))

    def wait_for_another_version(self) -> None:
        time.sleep(0.02)  # the kernel takes file times from a clock that ticks every 1 to 10 ms
