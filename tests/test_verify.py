"""jobs/verify.py: a bundle's golden data on this machine."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from batchinfer.bundle import Bundle, write_bundle
from batchinfer.errors import InputError
from conversion.proof.golden import MAX_ROWS, read_golden, write_golden
from conversion.proof.tolerance import Tolerance
from conversion.proof.verify import verify
from jobs.verify import call, read
from tests.support import tiny


@pytest.fixture(scope="module")
def proven(tmp_path_factory):
    """A bundle of y = x @ WEIGHTS with 10 golden rows; `wrong` has one wrong value in row 3."""
    folder = tmp_path_factory.mktemp("proven")

    def made(name, error):
        def fill(path):
            tiny._save(path, 1.0)
            y = tiny.expected(np.arange(1, 11))
            y[3, 1] += error
            outputs = {"y": y, "best": np.ones(10, np.int64)}
            write_golden(path, {"x": tiny.features(np.arange(1, 11))}, outputs)

        report = {"passed": True, "atol": 0.5, "rtol": 0.0}
        return write_bundle(
            str(folder / name), {"signature": tiny.SIGNATURE, "parity": report}, fill
        ).path

    return {"right": made("right", 0.0), "near": made("near", 0.25), "wrong": made("wrong", 2.0)}


def verified(capsys, *words):
    result = call(read(list(words)))
    return result.pop("exit_status"), result


def test_a_bundle_that_this_machine_reproduces_ends_with_status_0(proven, capsys):
    status, result = verified(capsys, proven["right"])
    assert status == 0
    first, within, *table = result["text"].splitlines()
    assert first.startswith("passed: ") and "10 golden rows in batches of 10" in first
    assert within == "within atol 0.5, rtol 0 (as it was converted with)"
    assert [line.split()[:2] for line in table[1:]] == [["best", "ok"], ["y", "ok"]]


def test_what_xla_computes_is_verified_as_such(proven, capsys, monkeypatch):
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    status, result = verified(capsys, proven["right"], "--xla", "--json")
    assert (status, result["passed"], result["runtime"]["xla"]) == (0, True, True)
    assert "with XLA" in verified(capsys, proven["right"], "--xla")[1]["text"]


def test_a_bundle_that_gives_other_predictions_ends_with_status_1(proven, capsys):
    status, result = verified(capsys, proven["wrong"], "--json")
    assert status == 1 and result["passed"] is False
    assert result["outputs"]["y"]["max_absdiff"] == 2.0
    assert (result["outputs"]["y"]["worst_row"], result["outputs"]["best"]["passed"]) == (3, True)
    assert result["runtime"]["python"] and result["runtime"]["devices"]
    json.dumps(result)


@pytest.mark.parametrize("flags, status", [([], 0), (["--atol", "0.2"], 1), (["--rtol", "0"], 1)])
def test_the_tolerance_is_the_bundles_own_unless_one_is_given(proven, capsys, flags, status):
    assert verified(capsys, proven["near"], *flags)[0] == status


def test_other_batch_sizes_can_be_tried(proven):
    assert verify(proven["right"], Tolerance(0.0, 0.0), batch_rows=3).passed
    with pytest.raises(InputError, match="batch_rows must be at least 1"):
        verify(proven["right"], batch_rows=0)


def test_a_bundle_without_golden_data_is_refused_with_what_to_do(bundle):
    with pytest.raises(InputError, match=r"holds no golden data .*--reference FILE.npz"):
        verify(bundle)


def test_golden_data_is_limited_in_rows_and_bytes(tmp_path):
    def kept(rows, row_values):
        inputs = {"x": np.zeros((rows, row_values), np.float32)}
        return write_golden(str(tmp_path), inputs, {"y": np.zeros(rows, np.float32)})

    assert kept(10, 1) == 10
    assert kept(100, 1) == MAX_ROWS == 64
    assert kept(8, 2 << 20) == 3  # rows of 8 MiB each, and 32 MiB at most with the outputs
    assert kept(2, 16 << 20) == 1
    found = read_golden(Bundle(str(tmp_path), {}))
    assert found.inputs["x"].shape == (1, 16 << 20)


def test_strings_are_stored_without_pickle(tmp_path):
    words = np.array([b"red", b"blue"], object)
    write_golden(str(tmp_path), {"words": words}, {"again": words})
    assert read_golden(Bundle(str(tmp_path), {})).outputs["again"].tolist() == [b"red", b"blue"]
    assert os.path.isfile(str(tmp_path / "assets.extra" / "parity.npz"))
