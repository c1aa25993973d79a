"""The one `import tensorflow`: graph-mode TensorFlow, whether 1.15 or 2.x is installed.

`from batchinfer.tf1 import tf` gives the `tf.compat.v1` API with eager execution off.
TensorFlow 1.15 logs a page of deprecation and NUMA lines at import; they are kept out of
a job's log unless TF_CPP_MIN_LOG_LEVEL says otherwise; its errors are kept where there is a
GPU, and on other machines they only say that there is none.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if os.path.exists("/proc/driver/nvidia") else "3")


@contextlib.contextmanager
def _unseen(*packages: str) -> Iterator[None]:
    """Within it, packages that are not loaded yet cannot be imported."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


# tensorboard, which TF 1.15 imports, takes boto3 along where it is installed: a fifth of the time.
with warnings.catch_warnings(), _unseen("boto3", "botocore"):
    # Of TF 1.15 itself: deprecated numpy calls, and the size of numpy's ufuncs (harmless).
    warnings.simplefilter("ignore")
    import tensorflow.compat.v1 as tf

logging.getLogger("tensorflow").setLevel(logging.ERROR)
tf.disable_eager_execution()

__all__ = ["CONTRIB_OPS", "register_ops", "tf"]

# Ops of a predictor that TF 1.15 knows only once this part of tf.contrib is imported.
CONTRIB_OPS = {
    "AdjustHsvInYiq": "image",
    "BipartiteMatch": "image",
    "DecodeLibsvm": "libsvm",
    "GatherTree": "seq2seq",
    "HyperplaneLSHProbes": "nearest_neighbor",
    "ImageConnectedComponents": "image",
    "ImageProjectiveTransform": "image",
    "ImageProjectiveTransformV2": "image",
    "MaskedMatmul": "factorization",
    "PeriodicResample": "periodic_resample",
    "ReinterpretStringToFloat": "tensor_forest",
    "Resampler": "resampler",
    "ScatterAddNdim": "tensor_forest",
    "SingleImageRandomDotStereograms": "image",
    "SkipGramGenerateCandidates": "text",
    "SparseFeatureCross": "layers",
    "SparseFeatureCrossV2": "layers",
    "TreePredictionsV4": "tensor_forest",
}


def register_ops(ops: Iterable[str]) -> None:
    """Import the parts of tf.contrib that register some ops (2 s); TF 2.x has none of them.

    Args:
        ops: names of ops; those of TensorFlow's core need nothing.
    """
    if not tf.__version__.startswith("1."):
        return
    for part in sorted({CONTRIB_OPS[op] for op in ops if op in CONTRIB_OPS}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(f"tensorflow.contrib.{part}")
