"""The command again on a finished output: it says so without Ray, and only for the same input."""

from __future__ import annotations

import os

import pytest

from batchinfer.driver import later
from batchinfer.errors import OutputConflictError
from tests.support import check, tiny
from tests.support.threads import ThreadBackend


class LateBackend(ThreadBackend):
    """Counts how often it is made: it stands for the import of Ray."""

    made = 0

    def backend(self):
        def make():
            self.made += 1
            return super(LateBackend, self).backend()

        return later(make)


@pytest.fixture
def finished(score, tmp_path):
    """A finished run; gives what its output folder holds."""
    score()
    return lambda: (
        check.snapshot(str(tmp_path / "out")),
        sorted(os.listdir(str(tmp_path / "out"))),
    )


def test_a_run_makes_its_backend_once(score):
    backend = LateBackend()
    assert score(backend)["status"] == "done"
    assert backend.made == 1


def test_a_finished_run_says_so_without_a_backend_and_changes_nothing(score, finished):
    before, backend = finished(), LateBackend()
    report = score(backend)
    assert (report["status"], report["exit_status"]) == ("done", 0)
    assert (report["rows_out"], report["shards_done_before"], report["shards_scored"]) == (
        3000,
        10,
        0,
    )
    assert (backend.made, finished()) == (0, before)


def test_a_refused_input_costs_no_backend(score, tmp_path):
    backend = LateBackend()
    with pytest.raises(OutputConflictError):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "theirs.parquet").write_text("not ours")
        score(backend)
    assert backend.made == 0


def added(folder):
    tiny.make_data(f"{folder}/more", 1, 10)


def removed(folder):
    os.unlink(f"{folder}/data-00003.parquet")


def rewritten(folder):
    """The same bytes, written again: another version of the file."""
    os.utime(f"{folder}/data-00003.parquet", ns=(1, 1))


def longer(folder):
    found = os.stat(f"{folder}/data-00003.parquet")
    with open(f"{folder}/data-00003.parquet", "ab") as file:
        file.write(b"\0")
    os.utime(f"{folder}/data-00003.parquet", ns=(found.st_atime_ns, found.st_mtime_ns))


CHANGES = [(added, "added "), (removed, "missing"), (rewritten, "changed"), (longer, "changed")]


@pytest.mark.parametrize("change, words", CHANGES, ids=[c[0].__name__ for c in CHANGES])
def test_a_finished_run_over_another_input_is_refused(score, data, finished, change, words):
    before = finished()
    change(data)
    with pytest.raises(OutputConflictError, match=rf"1 file\(s\) differ:\n  {words}"):
        score(LateBackend())
    assert finished() == before


def test_a_finished_run_that_lost_a_part_is_no_longer_done(score, tmp_path, finished):
    (name, *_) = sorted(finished()[0])
    (tmp_path / "out" / name).unlink()
    with pytest.raises(OutputConflictError, match=f"missing .* {name}"):
        score(LateBackend())
