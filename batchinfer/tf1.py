"""The one `import tensorflow`: graph-mode TensorFlow, whether 1.15 or 2.x is installed.

`from batchinfer.tf1 import tf` gives the `tf.compat.v1` API with eager execution off.
TensorFlow 1.15 logs a page of deprecation and NUMA lines at import; they are kept out of
a job's log unless TF_CPP_MIN_LOG_LEVEL says otherwise; its errors are kept where there is a
GPU, and on other machines they only say that there is none.
"""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if os.path.exists("/proc/driver/nvidia") else "3")

with warnings.catch_warnings():
    # Of TF 1.15 itself: deprecated numpy calls, and the size of numpy's ufuncs (harmless).
    warnings.simplefilter("ignore")
    import tensorflow.compat.v1 as tf

logging.getLogger("tensorflow").setLevel(logging.ERROR)
tf.disable_eager_execution()

__all__ = ["tf"]
