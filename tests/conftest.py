"""What every test needs: an environment of its own, and a bundle that is made once."""

from __future__ import annotations

import os

# Before anything imports TensorFlow or Ray; their own processes inherit it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["RAY_worker_niceness"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # newer Ray: clusters of tests are local and short
os.environ.pop("RAY_ADDRESS", None)

import pytest

from tests.support import tiny
from tests.support.hooks import write_hook

__all__ = ["write_hook"]


@pytest.fixture(autouse=True)
def devices():
    """An actor in this process hides GPUs from itself; the next test's processes see them again."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    if before is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """The folder of the tiny bundle: y = x @ WEIGHTS."""
    return tiny.make_bundle(str(tmp_path_factory.mktemp("bundle") / "tiny")).path


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory):
    """The same model with other weights."""
    return tiny.make_bundle(str(tmp_path_factory.mktemp("bundle") / "other"), scale=2.0).path
