"""The house's doors: who may import what, read from the source."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"batchinfer": set(), "conversion": {"batchinfer"}, "jobs": {"batchinfer", "conversion"}}
DOORS = {
    "ray": {f"batchinfer/{name}.py" for name in ("actors", "cluster", "local_ray")},
    "pyarrow": {"batchinfer/arrow.py"},
    "pyarrow_hotfix": {"batchinfer/arrow.py"},
    "tensorflow": {"batchinfer/tf1.py", "conversion/tf_internals.py"},
    "fsspec": {f"batchinfer/storage/{name}.py" for name in ("memory", "s3", "gcs")},
}


def imports(path):
    """The top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def files():
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way_and_through_the_doors(path):
    name = path.relative_to(ROOT).as_posix()
    package = name.split("/")[0]
    for module in set(imports(path)):
        if module in PACKAGES and module != package:
            assert module in PACKAGES[package], f"{name} imports {module}"
        if module in DOORS:
            assert name in DOORS[module], f"{name} imports {module}; the doors are {DOORS[module]}"


def test_importing_batchinfer_loads_no_ray_no_tensorflow_no_pyarrow():
    code = (
        "import sys, batchinfer, batchinfer.options, batchinfer.errors; "
        "print(sorted({'ray', 'tensorflow', 'pyarrow'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"[]\n"


@pytest.mark.skipif(importlib.util.find_spec("boto3") is None, reason="needs the s3 extra")
def test_importing_tensorflow_leaves_boto3_alone_and_importable():
    code = (
        "import sys; from batchinfer.tf1 import tf; "
        "print(sorted({'boto3', 'botocore'} & set(sys.modules))); "
        "import boto3; print(boto3.__name__, tf.constant(1).dtype.name)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.check_output([sys.executable, "-c", code], env=environment)
    assert told == b"[]\nboto3 int32\n"


def test_the_fix_for_crafted_parquet_is_active_where_parquet_is_read():
    from batchinfer.arrow import pa

    if pa.__version__.startswith("12."):
        assert "pyarrow_hotfix" in sys.modules


@pytest.mark.parametrize(
    "page",
    ["README.md", "CONTRIBUTING.md", "docs/conversion.md", "docs/scoring.md", "docs/decisions.md"],
)
def test_every_file_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text()
    names = set(re.findall(r"`((?:tests|batchinfer|conversion|jobs)/[\w/.]*\w)`", text))
    names |= set(re.findall(r"\]\(([\w./]+)(?:#[\w-]+)?\)", text))
    folder = (ROOT / page).parent
    missing = [n for n in names if not ((ROOT / n).exists() or (folder / n).exists())]
    assert missing == []
