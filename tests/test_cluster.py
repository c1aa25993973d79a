"""What the command says of a cluster that is not there, or that can never run an actor."""

from __future__ import annotations

import pytest

from batchinfer.cluster import connected
from batchinfer.errors import InputError
from batchinfer.options import ClusterOptions
from tests.support.processes import free_port


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_told_at_once(scheme):
    cluster = ClusterOptions(address=f"{scheme}127.0.0.1:{free_port()}")
    with pytest.raises(InputError, match=r"no Ray cluster answers at .*Expected HOST:PORT"):
        with connected(cluster):
            raise AssertionError("there is no cluster to connect to")


def test_an_address_without_a_port_is_told():
    with pytest.raises(InputError, match=r"no Ray cluster answers at 127\.0\.0\.1:head"):
        with connected(ClusterOptions(address="127.0.0.1:head")):
            raise AssertionError("there is no cluster to connect to")


def test_logical_gpus_are_for_a_ray_that_is_started_here():
    with pytest.raises(InputError, match="num_gpus is for a Ray that is started here"):
        with connected(ClusterOptions(address="auto", num_gpus=2)):
            raise AssertionError("refused before it connects")
