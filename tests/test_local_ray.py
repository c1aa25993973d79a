"""What is left out of a Ray that is started here, and that nothing of Ray stays changed by it."""

from __future__ import annotations

import os

import pytest
import ray

from batchinfer import local_ray

Node = ray._private.node.Node


def originals():
    return [getattr(Node, name) for name in local_ray.SPARED]


@pytest.fixture
def asked(monkeypatch):
    """What `ray.init` was called with, and what Ray's own starters were then."""
    found = {}

    def init(**arguments):
        found.update(arguments, starters=originals(), environment=dict(os.environ))

    monkeypatch.setattr(ray, "init", init)
    for name in [*local_ray.ENVIRONMENT, "PYTHONPATH"]:
        monkeypatch.setenv(name, "")  # so that they are put back after the test
        monkeypatch.delenv(name)
    return found


def test_ray_starts_without_what_no_run_uses_and_is_itself_again_afterwards(asked):
    before = originals()
    local_ray.start("/project", 3, log_to_driver=False)
    assert (asked["address"], asked["num_gpus"], asked["log_to_driver"]) == ("local", 3, False)
    assert [starter(None) for starter in asked["starters"]] == [None, None, None]
    assert originals() == before


def test_ray_is_itself_again_when_it_cannot_start(monkeypatch, asked):
    def init(**arguments):
        raise RuntimeError("no room in /tmp")

    monkeypatch.setattr(ray, "init", init)
    before = originals()
    with pytest.raises(RuntimeError, match="no room"):
        local_ray.start("/project", None)
    assert originals() == before


def test_another_ray_starts_whole(monkeypatch, asked):
    monkeypatch.setattr(ray, "__version__", "2.60.0")
    local_ray.start("/project", None)
    assert asked["starters"] == originals()


def test_the_environment_of_workers_is_set_unless_the_user_has_set_it(monkeypatch, asked):
    monkeypatch.setenv("RAY_worker_niceness", "5")
    monkeypatch.setenv("PYTHONPATH", "/theirs:/project/x")
    local_ray.start("/project", None)
    environment = asked["environment"]
    assert environment["RAY_worker_niceness"] == "5"
    assert environment["RAY_prestart_worker_first_driver"] == "0"
    assert environment["PYTHONPATH"] == "/project:/theirs:/project/x"
