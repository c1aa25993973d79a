"""`ray job submit` with Ray's own CLI to a Ray head of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np

from tests.support import check, tiny
from tests.support.processes import DEADLINE_S, ROOT, ray_head

HOOKS = """
def with_names(outputs):
    return {"y": outputs["y"], "name_of_best": outputs["best"].astype(str)}

with_names.returns = {"y": "float32[?, 2]", "name_of_best": "text[?]"}
"""


def test_a_submitted_job_scores_every_row(bundle, tmp_path):
    """The quotes, brackets and blanks are what the CLI of Ray 2.7 would mangle in flags."""
    data, out = tmp_path / "it's [data] (1)", tmp_path / "out put"
    ids = np.arange(tiny.make_data(str(data), 8, 250))
    project = tmp_path / "project"
    for package in ("batchinfer", "conversion", "jobs"):
        shutil.copytree(str(ROOT / package), str(project / package))
    config = {
        "bundle": bundle,
        "input": [str(data)],
        "output": str(out),
        "map": {"x": "x"},
        "keep": ["id", "name"],
        "shard-mib": 0.01,
        "postprocess": "my_hooks:with_names",  # of the working folder, on every worker
    }
    (project / "my_hooks.py").write_text(HOOKS)
    (project / "score.yaml").write_text(json.dumps(config))
    with ray_head(num_gpus=2) as (_, jobs_address):
        submitted = subprocess.run(
            [
                os.path.join(os.path.dirname(sys.executable), "ray"), "job", "submit",
                "--address", jobs_address, "--working-dir", str(project),
                "--", "python", "jobs/score.py", "--config", "score.yaml",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=DEADLINE_S,
        )  # fmt: skip
    assert submitted.returncode == 0, submitted.stdout
    assert "succeeded" in submitted.stdout
    check.assert_exact(str(out), ids, tiny.expected(ids))
    best = tiny.expected(ids).argmax(axis=1)
    names = check.read_parts(str(out)).column("name_of_best").to_pylist()
    assert names == [str(one) for one in best]
    report = json.loads((out / "_batchinfer" / "report.json").read_text())
    assert (report["status"], report["rows_out"], report["rows_missing"]) == ("done", 2000, 0)
    # So little work that the first actor may have done it all before the second was up.
    assert report["device"].startswith("cpu (logical GPU ")
