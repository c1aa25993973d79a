"""Imported first, for its effect: TensorFlow 1.15 says less while it is imported and used.

TensorFlow 1.15 logs a page about numpy, NUMA, missing GPUs and its own deprecations in every
process; its errors still arrive as exceptions. `TF_CPP_MIN_LOG_LEVEL=0` brings its log back.
"""

from __future__ import annotations

import logging
import os
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore", category=FutureWarning)  # numpy 1.18 about `np.dtype((type, 1))`

import tensorflow.compat.v1 as tf  # noqa: E402  the two lines above must come first

tf.logging.set_verbosity(logging.ERROR)
