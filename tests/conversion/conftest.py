"""TPU artifacts that the conversion tests share; each is built once per session."""

from __future__ import annotations

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

with warnings.catch_warnings():  # TensorFlow 1.15 warns while it is imported
    warnings.simplefilter("ignore")
    from batchinfer.tf1 import tf

from tests.conversion import tpu_models
from tests.conversion.models.harness import Workshop


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory):
    """Paths: checkpoint, rewrite graphs in float32 and bfloat16, and three SavedModels."""
    folder = str(tmp_path_factory.mktemp("artifacts"))
    checkpoint = tpu_models.train(folder)

    def export(name, precision, with_cpu_graph):
        return tpu_models.export_saved_model(
            os.path.join(folder, name), checkpoint, precision, with_cpu_graph
        )

    def rewrite(name, precision):
        return tpu_models.save_rewrite_graph(os.path.join(folder, name), precision)

    return SimpleNamespace(
        folder=folder,
        checkpoint=checkpoint,
        rewrite_float32=rewrite("float32.meta", tf.float32),
        rewrite_bfloat16=rewrite("bfloat16.meta", tf.bfloat16),
        tpu_float32=export("tpu_float32", tf.float32, with_cpu_graph=False),
        tpu_bfloat16=export("tpu_bfloat16", tf.bfloat16, with_cpu_graph=False),
        both_float32=export("both_float32", tf.float32, with_cpu_graph=True),
        both_bfloat16=export("both_bfloat16", tf.bfloat16, with_cpu_graph=True),
    )


@pytest.fixture(scope="session")
def reference(artifacts):
    """20 rows and what the same model gives for them without a TPU, in float32."""
    image = tpu_models.images(20, seed=3)
    return {"image": image}, tpu_models.reference(artifacts.checkpoint, image)


@pytest.fixture(scope="session")
def reference_file(artifacts, reference):
    """The reference as `--reference` takes it."""
    inputs, outputs = reference
    arrays = {f"inputs/{name}": array for name, array in inputs.items()}
    arrays.update({f"outputs/{name}": array for name, array in outputs.items()})
    path = os.path.join(artifacts.folder, "reference.npz")
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """By model: its checkpoint and forms, made once."""
    return Workshop(str(tmp_path_factory.mktemp("models"))).prepare
