"""A bundle behind a URL: fetched once, fetched anew when it changes, checked like any other."""

from __future__ import annotations

import os
import tempfile

import pytest

from batchinfer.bundle import Bundle
from batchinfer.bundle_cache import local_bundle
from batchinfer.errors import BundleError
from batchinfer.storage import open_store


@pytest.fixture
def remote(bundle, tmp_path, monkeypatch):
    """The tiny bundle under memory://models/m, and a temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store, _ = open_store("memory://models/m")
    for info in list(store.list("models")):
        store.delete(info.path)
    for folder, _, names in os.walk(bundle):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                store.put("models/m/" + os.path.relpath(path, bundle), file.read())
    return store


def test_a_local_bundle_stays_where_it_is(bundle):
    assert local_bundle(bundle, open_store) == bundle


def test_a_remote_bundle_is_fetched_whole_and_once(remote, bundle):
    path = local_bundle("memory://models/m", open_store)
    assert Bundle.open(path).digest == Bundle.open(bundle).digest
    made = os.stat(path).st_ino
    assert local_bundle("memory://models/m", open_store) == path
    assert os.stat(path).st_ino == made
    assert len(os.listdir(os.path.dirname(path))) == 1  # nothing half fetched is left


def test_a_bundle_that_was_replaced_is_fetched_anew(remote):
    before = local_bundle("memory://models/m", open_store)
    remote.put("models/m/saved_model.pb", b"another graph")
    after = local_bundle("memory://models/m", open_store)
    assert after != before
    with pytest.raises(BundleError, match=r"changed     saved_model\.pb"):
        Bundle.open(after)


def test_nothing_there_is_told():
    with pytest.raises(BundleError, match="no bundle at memory://models/none"):
        local_bundle("memory://models/none", open_store)


def test_a_name_that_points_out_of_the_folder_is_refused(remote):
    remote.put("models/m/../../evil", b"x")
    with pytest.raises(BundleError, match="points out of the bundle's folder"):
        local_bundle("memory://models/m", open_store)
