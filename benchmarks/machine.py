"""Where and with what a benchmark ran."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import datetime, timezone
from importlib import import_module

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def describe(command: str, load_before: float) -> str:
    """Date, commit, command, machine and versions as Markdown lines."""
    moment = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
    return "\n".join(
        [
            f"## {moment} UTC, commit {commit()}",
            "",
            f"- command: `{command}`",
            f"- machine: {_cpu_model()}, {os.cpu_count()} cores, {_memory_gb():.0f} GB, "
            f"{platform.system()} {platform.release()}; load before {load_before:.1f}",
            f"- versions: {', '.join(_versions())}",
            "",
        ]
    )


def commit() -> str:
    """The commit's first digits, with a `+` where files differ from it; else `unknown`."""
    try:
        command = ["git", "-C", ROOT, "rev-parse", "--short=9", "HEAD"]
        head = subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().strip()
        command = ["git", "-C", ROOT, "status", "--porcelain", "--untracked-files=no"]
        return head + ("+" if subprocess.check_output(command).strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _cpu_model() -> str:
    with open("/proc/cpuinfo") as file:
        found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def _versions() -> list[str]:
    names = ("batchinfer", "tensorflow", "ray", "pyarrow", "numpy")
    found = [f"{name} {import_module(name).__version__}" for name in names]
    return [f"Python {platform.python_version()}", *found]
