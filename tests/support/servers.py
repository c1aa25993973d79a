"""S3 servers on the loopback interface: one honours conditional writes, one ignores them.

Both are moto, of the major version that behaves so: 5 answers `If-None-Match: *` with 412, as
S3 does; 4 overwrites without a word, as older stores behind the S3 API do. moto 4 installs on
Python 3.7 and moto 5 does not, so each is looked for in every environment of this checkout.
"""

from __future__ import annotations

import contextlib
import glob
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Iterator, Optional

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ENVIRONMENTS = (sys.prefix, os.path.join(ROOT, ".venv"), os.path.join(ROOT, ".venv-tools"))
START_TIMEOUT_S = 60
CREDENTIALS = {  # moto takes any; set by the fixture that starts a server
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextlib.contextmanager
def conditional_s3() -> Iterator[str]:
    """The URL of a fresh, empty S3 whose create refuses a taken name; moto 5."""
    with _moto(5) as url:
        yield url


@contextlib.contextmanager
def plain_s3() -> Iterator[str]:
    """The URL of a fresh, empty S3 that ignores conditions on writes; moto 4."""
    with _moto(4) as url:
        yield url


def make_bucket(endpoint: str, name: str) -> str:
    """A new bucket on one of these servers; its name."""
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    urllib.request.urlopen(request, timeout=10).close()
    return name


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _moto(major: int) -> Iterator[str]:
    python = _python_with_moto(major)
    if python is None:
        pytest.skip(f"no environment with moto {major} here; `make env tools` makes them")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **CREDENTIALS},
    )
    try:
        _wait_until_it_answers(url, server)
        yield url
    finally:
        server.kill()
        server.wait()


def _python_with_moto(major: int) -> Optional[str]:
    for environment in ENVIRONMENTS:
        pattern = f"lib/python3*/site-packages/moto-{major}.*"
        python = os.path.join(environment, "bin", "python")
        if glob.glob(os.path.join(environment, pattern)) and os.path.exists(python):
            return python
    return None


def _wait_until_it_answers(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.URLError as error:
            if server.poll() is not None:
                raise RuntimeError(f"moto ended with status {server.returncode}") from error
            if time.monotonic() > deadline:
                raise RuntimeError(f"moto did not answer in {START_TIMEOUT_S} s") from error
            time.sleep(0.05)
