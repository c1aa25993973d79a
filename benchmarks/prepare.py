"""Data and bundles of a workload, made once below build/bench and kept there."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Iterable, Mapping

from batchinfer.bundle import Bundle
from batchinfer.signature import TensorSpec
from benchmarks import data
from benchmarks.bundles import make_bundles
from benchmarks.task import Task
from benchmarks.workloads import SEED, Workload


@dataclass(frozen=True)
class Prepared:
    """What a workload's runs share.

    Attributes:
        data, rows, repeats: folder, rows in it, and names per distinct file.
        bundles: `plain`, and `optimized` where convert.py can.
    """

    workload: Workload
    data: str
    rows: int
    repeats: int
    bundles: Mapping[str, str]

    def bundle(self, kind: str) -> str:
        """`optimized` is the plain one as long as nothing optimises."""
        return self.bundles.get(kind, self.bundles["plain"])

    def input_name(self, kind: str) -> str:
        return _signature(self.bundle(kind))[0].name

    def task(self, kind: str, out: str, events: str, **more) -> Task:
        """A run of the model in the bundle of this kind."""
        source, target = _signature(self.bundle(kind))
        workload = self.workload
        return Task(
            data=self.data,
            repeats=self.repeats,
            bundle=self.bundle(kind),
            out=out,
            events=events,
            column=workload.column,
            dtype=workload.dtype,
            row_shape=list(workload.row_shape),
            feed=source.tensor,
            fetch=target.tensor,
            num_outputs=workload.num_outputs,
            device_rows_per_s=workload.device_rows_per_s,
            **more,
        )


def _signature(bundle: str) -> tuple[TensorSpec, TensorSpec]:
    signature = Bundle.open(bundle).signature
    return signature.inputs[0], signature.outputs[0]


def prepare(
    folder: str, workload: Workload, scale: float, kinds: Iterable[str] = ("plain", "optimized")
) -> Prepared:
    """Make what is not there yet.

    Args:
        scale: times the workload's rows. Above 1 it is rounded up to a whole number, and the
            files of scale 1 get so many names each.
        kinds: of bundles that are needed.
    """
    os.makedirs(os.path.join(folder, "data"), exist_ok=True)
    rows = max(1, int(workload.rows * min(scale, 1.0)))
    repeats = max(1, math.ceil(scale))
    base = data.write_once(
        os.path.join(folder, "data", f"{workload.data_name}-{rows}"),
        workload.values,
        workload.column,
        rows,
        workload.rows_per_file,
        workload.rows_per_group,
        SEED,
    )
    return Prepared(
        workload,
        data.repeat(base, repeats),
        rows * repeats,
        repeats,
        make_bundles(folder, workload, kinds),
    )


def read_json(path: str) -> dict:
    """A JSON file's object; empty when there is no file."""
    if not os.path.exists(path):
        return {}
    with open(path) as file:
        return json.load(file)
