"""Freed memory stays: counted in page faults, in processes of their own."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from batchinfer import memory
from batchinfer.arrow import pa

BUFFERS = 100
PAGES = BUFFERS * (8 << 20) // 4096
COUNT = """
import resource, sys
import numpy as np
from batchinfer.arrow import pa
from batchinfer.memory import keep_freed_memory

def make(times):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        np.frombuffer(pa.allocate_buffer(8 << 20), np.uint8).fill(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
make(3)
print(make(int(sys.argv[2])))
"""


def faults(how):
    command = [sys.executable, "-c", COUNT, how, str(BUFFERS)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's mallopt")
def test_buffers_of_a_batch_take_no_new_pages():
    assert faults("kept") < PAGES // 100


def test_where_there_is_no_mallopt_nothing_changes(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    before = pa.default_memory_pool().backend_name
    memory.keep_freed_memory()
    assert pa.default_memory_pool().backend_name == before
