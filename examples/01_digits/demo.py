"""From a model trained for TPUs to checked predictions: python examples/01_digits/demo.py

Runs the commands of README.md one after the other, each printed before it runs, and stops at
the first that fails. Starts over each time: what an earlier demo wrote is removed first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
WIDTH = 110  # characters of a JSON result's entry that are shown
OWN_FOLDERS = ["train", "artifacts", "data", "bundle", "bundle_saved_model", "predictions"]


def steps(root, rows, files, num_gpus):
    """What the demo does, as (title, command) pairs; paths are relative to the project."""
    example = os.path.relpath(HERE, PROJECT)
    rules = ["--rules", f"{example}/rules.yaml", "--reference", f"{root}/reference.npz"]
    metagraph = f"{root}/artifacts/rewrite/predict.meta"
    saved_model = f"{root}/artifacts/saved_model_tpu"
    sizes = ["--rows", str(rows), "--files", str(files)]
    score = ["jobs/score.py", "--bundle", f"{root}/bundle", "--input", f"{root}/data"]
    score += ["--output", f"{root}/predictions", "--map", "image=pixels", "--keep", "id,label"]
    score += ["--num-gpus", str(num_gpus), "--shard-mib", "0.1"]
    return [
        ("Train a model written for TPUs", [f"{example}/train.py", "--dir", root]),
        ("Export what a TPU user has", [f"{example}/export_tpu.py", "--dir", root]),
        ("Look into the artifact", ["jobs/inspect.py", metagraph]),
        (
            "Convert the MetaGraph",
            ["jobs/convert.py", metagraph, "--out", f"{root}/bundle"] + rules,
        ),
        (
            "Convert the TPU SavedModel",
            ["jobs/convert.py", saved_model, "--out", f"{root}/bundle_saved_model"] + rules,
        ),
        ("Make the data", [f"{example}/make_data.py", "--dir", root] + sizes),
        ("Score it", score),
        ("Check every row", [f"{example}/check.py", "--dir", root]),
    ]


def run(command):
    """Run one Python command in the project's root; print its stdout line by line and return it.

    Raises:
        subprocess.CalledProcessError: its exit status is not 0.
    """
    print("$ python " + " ".join(command), flush=True)
    whole = [sys.executable] + command
    lines = []
    unbuffered = dict(os.environ, PYTHONUNBUFFERED="1")
    with subprocess.Popen(
        whole, cwd=PROJECT, env=unbuffered, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            print(readable(lines[-1]), flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, whole)
    return lines


def readable(line):
    """A line as it is, or if it is a command's JSON result, one cut line for each entry."""
    if not line.startswith("{"):
        return line
    entries = [f"  {name}: {json.dumps(value)}" for name, value in json.loads(line).items()]
    return "\n".join(text if len(text) <= WIDTH else text[:WIDTH] + "..." for text in entries)


def start_over(root):
    """Remove what an earlier demo wrote, and nothing else that may lie in the folder."""
    for name in OWN_FOLDERS:
        shutil.rmtree(os.path.join(PROJECT, root, name), ignore_errors=True)


def summary(root, said, seconds):
    """The last lines of the demo, from what `jobs/score.py` and `check.py` said.

    Args:
        said: {title of a step: its lines of stdout}
    """
    scored = json.loads(said["Score it"][-1])
    where = [
        ("model, checkpoint", f"{root}/train"),
        ("TPU artifacts", f"{root}/artifacts"),
        ("bundles", f"{root}/bundle  {root}/bundle_saved_model"),
        ("data", f"{root}/data"),
        ("predictions", f"{root}/predictions"),
    ]
    return (
        said["Check every row"]
        + [f"{'rows/s':<22} {scored['rows_per_s']:,.0f} on {scored['device']}"]
        + [f"{name:<22} {path}" for name, path in where]
        + [f"{'seconds in all':<22} {seconds:.0f}"]
    )


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default="build/demo", help="everything is written below it")
    parser.add_argument("--rows", type=int, default=100000, help="rows to score (default: 100000)")
    parser.add_argument("--files", type=int, default=20, help="Parquet files (default: 20)")
    parser.add_argument("--num-gpus", type=int, default=2, help="GPUs to score on (default: 2)")
    flags = parser.parse_args(argv)

    start_over(flags.dir)
    started = time.monotonic()
    said = {}
    todo = steps(flags.dir, flags.rows, flags.files, flags.num_gpus)
    for number, (title, command) in enumerate(todo, start=1):
        print(f"\n== {number}/{len(todo)} {title}")
        try:
            said[title] = run(command)
        except subprocess.CalledProcessError as error:
            print(f"the demo stops here: exit status {error.returncode}", file=sys.stderr)
            return error.returncode
    print("\n== Done")
    print("\n".join(summary(flags.dir, said, time.monotonic() - started)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
