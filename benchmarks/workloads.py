"""The workloads: what each reads, which model it runs, and what its sizes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Mapping

from benchmarks import data

SEED = 20
DEVICE_ROWS_PER_S = 300_000.0  # of the simulated device


@dataclass(frozen=True)
class Workload:
    """One kind of job.

    Attributes:
        name: as `--workloads` takes it.
        rows: at `--scale 1`.
        model: name of a function in `benchmarks.models`.
        on_tpu: whether the model comes as a tpu.rewrite graph; else as a SavedModel, because its
            ops run on the host.
        column, dtype, row_shape: of the input; dtype `string` is bytes.
        num_outputs: floats per row.
        values: makes the column of `n` rows from a seeded generator.
        rows_per_file, rows_per_group: of the Parquet files.
        batches: rows per run of the model that are tried for `raw`.
        sweep_rows: that raw runs for each size that is tried; a second or two.
        ray_batches, ray_blocks: that are tried for Ray Data.
        device_rows_per_s: of a simulated device in place of the model; 0 is the model.
    """

    name: str
    rows: int
    model: str
    on_tpu: bool
    column: str
    dtype: str
    row_shape: tuple[int, ...]
    num_outputs: int
    values: Callable[..., data.Column]
    rows_per_file: int
    rows_per_group: int
    batches: tuple[int, ...]
    sweep_rows: int
    ray_batches: tuple[int, ...]
    ray_blocks: tuple[int, ...] = (8, 16, 64)
    device_rows_per_s: float = 0.0

    @property
    def data_name(self) -> str:
        """Workloads of equal data share it."""
        return f"{self.column}-{self.rows_per_file}x{self.rows_per_group}"


def _tabular(name: str, rows: int, rows_per_file: int, rows_per_group: int, **more) -> Workload:
    return Workload(
        name=name,
        rows=rows,
        model="mlp",
        on_tpu=True,
        column="features",
        dtype="float32",
        row_shape=(64,),
        num_outputs=10,
        values=data.floats,
        rows_per_file=rows_per_file,
        rows_per_group=rows_per_group,
        batches=(1024, 2048, 4096, 8192, 16384),
        sweep_rows=2_000_000,
        ray_batches=(4096, 8192, 62_500),
        **more,
    )


def _image(name: str, model: str, on_tpu: bool, dtype: str, values: Callable) -> Workload:
    return Workload(
        name=name,
        rows=20_000,
        model=model,
        on_tpu=on_tpu,
        column="pixels" if dtype == "uint8" else "jpeg",
        dtype=dtype,
        row_shape=(64, 64, 3) if dtype == "uint8" else (),
        num_outputs=10,
        values=values,
        rows_per_file=2500,
        rows_per_group=500,
        batches=(16, 32, 64, 128, 256),
        sweep_rows=6000,
        ray_batches=(64, 256),
        ray_blocks=(8, 16),
    )


TABULAR = _tabular("tabular", 2_000_000, 250_000, 62_500)
IMAGE = _image("image", "residual_cnn", True, "uint8", data.pixels)
TEXT = Workload(
    name="text",
    rows=50_000,
    model="transformer",
    on_tpu=True,
    column="tokens",
    dtype="int32",
    row_shape=(128,),
    num_outputs=4,
    values=data.tokens,
    rows_per_file=6250,
    rows_per_group=1250,
    batches=(4, 8, 16, 32, 64),
    sweep_rows=1500,
    ray_batches=(16, 64),
    ray_blocks=(8, 16),
)
SMALL_FILES = _tabular("small_files", 200_000, 100, 100)
HUGE_FILE = _tabular("huge_file", 7_500_000, 7_500_000, 1_250_000)  # 2 GB, six row groups
DEVICE = _tabular("device", 2_000_000, 250_000, 62_500, device_rows_per_s=DEVICE_ROWS_PER_S)
JPEG = _image("jpeg", "decode_and_classify", False, "string", data.jpegs)
TF_EXAMPLE = Workload(
    name="tfexample",
    rows=200_000,
    model="parse_and_classify",
    on_tpu=False,
    column="example",
    dtype="string",
    row_shape=(),
    num_outputs=10,
    values=data.examples,
    rows_per_file=25_000,
    rows_per_group=6250,
    batches=(256, 1024, 4096),
    sweep_rows=200_000,
    ray_batches=(1024, 4096),
    ray_blocks=(8, 16),
)

WORKLOADS: Mapping[str, Workload] = {
    one.name: one
    for one in (TABULAR, IMAGE, TEXT, SMALL_FILES, HUGE_FILE, DEVICE, JPEG, TF_EXAMPLE)
}
