"""`jobs/score.py` as a process with Ray's real actors: hooks, the best classes and their labels."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from tests.support import check, tiny
from tests.support.processes import score, short_folder

IDS = np.arange(1000)
HOOKS = """
import numpy as np

def from_id(batch):
    ids = batch.column(0).to_numpy()
    return {"x": np.stack([ids % 7, ids % 11, ids % 13, ids % 17], axis=1).astype(np.float32)}

def with_words(outputs):
    y = outputs["y"]
    return {"y": y, "word": y[:, 0].astype(int).astype(str)}

with_words.returns = {"y": "float32[?, 2]", "word": "text[?]"}
"""


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch):
    with short_folder() as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield


def test_hooks_and_the_best_with_labels(bundle, tmp_path):
    tiny.make_data(str(tmp_path / "data"), 4, 250)
    (tmp_path / "e2e_hooks.py").write_text(HOOKS)
    (tmp_path / "labels.txt").write_text("small\nlarge\n")
    config = {
        "bundle": bundle, "input": str(tmp_path / "data"), "output": str(tmp_path / "out"),
        "keep": ["id"], "preprocess": "e2e_hooks:from_id", "preprocess_columns": ["id"],
        "postprocess": "e2e_hooks:with_words", "postprocess-outputs": "y",
        "output-columns": ["word"], "top-k": {"y": 1}, "argmax": "y",
        "labels": str(tmp_path / "labels.txt"),
    }  # fmt: skip
    (tmp_path / "score.yaml").write_text(json.dumps(config))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    flags = ["--config", tmp_path / "score.yaml", "--num-gpus", 2, "--shard-mib", 0.001]
    status, report, err = score(*flags, PYTHONPATH=path)
    assert status == 0, err
    assert (report["shards"], report["rows_out"]) == (4, 1000)
    y = tiny.expected(IDS)
    best = y.argmax(axis=1)
    assert check.read_parts(str(tmp_path / "out")).to_pydict() == {
        "id": IDS.tolist(),
        "word": [str(int(one)) for one in y[:, 0]],
        "y_top1_index": best.reshape(-1, 1).tolist(),
        "y_top1_value": y.max(axis=1).reshape(-1, 1).tolist(),
        "y_top1_label": [[("small", "large")[i]] for i in best],
        "y_argmax": best.tolist(),
        "y_label": [("small", "large")[i] for i in best],
    }

    status, report, err = score(*flags, "--labels", f"word={tmp_path}/none.txt", PYTHONPATH=path)
    assert (status, report) == (2, None)
    assert "none.txt" in err
    (tmp_path / "e2e_hooks.py").write_text(HOOKS + "# changed\n")
    status, report, err = score(*flags, PYTHONPATH=path)
    assert (status, report) == (2, None)
    assert "postprocess_sha256: the output has " in err
    assert "preprocess_sha256: the output has " in err
