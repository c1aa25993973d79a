from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref

import pytest

from batchinfer.errors import InputError, StorageError
from batchinfer.storage import open_store, protocol_of
from tests.support.servers import ROOT

# google-auth imports cryptography, which says on Python 3.7 that it will leave it.
pytestmark = pytest.mark.filterwarnings("ignore:Python 3.7 is no longer supported")

ANONYMOUS = {"s3": {"anon": True}, "gcs": {"token": "anon"}}


@pytest.mark.parametrize(
    "url, protocol, kind, path",
    [
        ("/data/in", "local", "LocalStore", "/data/in"),
        ("/data//a/../in/", "local", "LocalStore", "/data/in"),
        ("data/in", "local", "LocalStore", os.path.abspath("data/in")),
        ("/", "local", "LocalStore", "/"),
        ("file:///data/in", "local", "LocalStore", "/data/in"),
        ("/data/a%20b [x] ü", "local", "LocalStore", "/data/a%20b [x] ü"),
        ("memory://bucket/in/", "memory", "MemoryStore", "bucket/in"),
        ("s3://bucket", "s3", "S3Store", "bucket"),
        ("s3://bucket/a/b/", "s3", "S3Store", "bucket/a/b"),
        ("s3a://bucket/a", "s3", "S3Store", "bucket/a"),  # Hadoop's and Spark's spelling
        ("gs://bucket/a", "gcs", "GcsStore", "bucket/a"),
        ("gcs://bucket/a", "gcs", "GcsStore", "bucket/a"),
        ("s3://bucket/a%20b?c#d", "s3", "S3Store", "bucket/a%20b?c#d"),
    ],
)
def test_a_url_names_a_store_and_a_path(url: str, protocol: str, kind: str, path: str) -> None:
    store, found = open_store(url, ANONYMOUS.get(protocol))
    assert (protocol, kind, path) == (protocol_of(url), type(store).__name__, found)


@pytest.mark.parametrize(
    "url, message",
    [
        ("http://host/x", "starts with file://, memory://, s3://, .*found http://"),
        ("hdfs://host/x", "found hdfs://"),
        ("S3://bucket/x", "found S3://"),
        ("simplecache::s3://bucket/x", "without `::`"),
        ("/data/a::b", "without `::`"),
        ("/data/a\x00b", "control characters"),
        ("s3://bucket/a\nb", "control characters"),
        ("/data/a\x7fb", "control characters"),
        ("/data/a\x9bb", "control characters"),  # C1: starts an escape sequence on a terminal
        ("", "expected a path"),
        ("file://", "expected a path"),
        ("s3://", "expected a path, or a bucket"),
        ("memory://", "expected a path"),
        ("gs:///", "expected a path, or a bucket"),
    ],
)
def test_what_is_no_plain_path_or_url_is_refused(url: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_store(url)


@pytest.mark.parametrize(
    "url, options, message",
    [
        ("s3://bucket", {"profile": "no-such-profile"}, "no-such-profile"),
        ("s3://bucket", {"endpoint_url": "not a url"}, "not a url"),
        ("gs://bucket", {"token": "anon", "access": "everything"}, "access"),
    ],
)
def test_options_that_no_client_can_be_made_of_are_refused(
    url: str, options: dict, message: str
) -> None:
    with pytest.raises(StorageError, match=message):
        open_store(url, options)


@pytest.mark.parametrize("url, package", [("s3://bucket", "s3fs"), ("gs://bucket", "gcsfs")])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(url: str, package: str) -> None:
    code = (
        "import sys; sys.modules[sys.argv[2]] = None  # as if it were not installed\n"
        "from batchinfer.storage import open_store; open_store(sys.argv[1])"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, url, package]
    done = subprocess.run(command, stderr=subprocess.PIPE, cwd=ROOT, timeout=60)
    message = done.stderr.decode().splitlines()[-1]
    assert message.startswith(f"batchinfer.errors.InputError: {url}: ")
    assert message.endswith(f"pip install 'batchinfer[{protocol_of(url)}]'")


def test_a_url_is_written_as_it_was_read() -> None:
    for url in ("/data/in", "memory://bucket/in", "s3://bucket/a b", "gs://bucket/in"):
        store, path = open_store(url, ANONYMOUS.get(protocol_of(url)))
        assert url == store.url(path)


@pytest.mark.parametrize("url", ["s3://bucket", "gs://bucket"])
def test_stores_that_are_dropped_keep_their_file_system(url: str) -> None:
    """Those of s3fs 2023.1 stop all I/O of the process for 5 s when they are collected."""
    alive = []
    for number in range(20):
        options = {"max_paths": number + 1, **ANONYMOUS[protocol_of(url)]}
        store, _ = open_store(url, options)
        alive.append(weakref.ref(store._fs))
        del store
    gc.collect()
    assert len({id(found()) for found in alive} - {id(None)}) == 20
