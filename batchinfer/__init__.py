"""Score Parquet with a converted TensorFlow 1.15 TPU model on GPUs, every row exactly once.

Importing this package loads neither ray nor tensorflow nor pyarrow: a driver that only
plans, or a command that only prints its help, stays light.
"""

from __future__ import annotations

__version__ = "0.1.0"
