"""Modules with hooks, written by a test into a folder that it then runs in."""

from __future__ import annotations

import itertools
import sys
import textwrap

import pytest

_NUMBERS = itertools.count()  # a module's name is used once in a process


@pytest.fixture
def write_hook(tmp_path, monkeypatch):
    """Write a module of this text into the current folder; gives its name and its path.

    With `name` an earlier module is written again, as for a process that was started later.
    """
    (tmp_path / "code").mkdir()
    monkeypatch.chdir(tmp_path / "code")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(text, name=None):
        name = name or f"hook_{next(_NUMBERS)}"
        path = tmp_path / "code" / f"{name}.py"
        path.write_text("import numpy as np\n" + textwrap.dedent(text))
        sys.modules.pop(name, None)
        return name, str(path)

    return write
