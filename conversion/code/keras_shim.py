"""What Keras code says about TPUs, graphs and sessions, answered while its model is built."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator

from conversion.code import tpu_answers
from conversion.code.answered import answered
from conversion.code.tpu_api import KERAS, one_device

OPS = "tensorflow.python.framework.ops:"
BACKEND = "tensorflow.python.keras.backend:"
REMOTE = "tensorflow.python.eager.remote:"
V2_BEHAVIOR = "tensorflow.python.compat.v2_compat:enable_v2_behavior"

# Would connect to a TPU, throw away the graph that is being built, or leave graph mode.
IGNORED = (
    *(REMOTE + name for name in ("connect_to_remote_host", "connect_to_cluster")),
    *(BACKEND + name for name in ("clear_session", "set_session")),
    V2_BEHAVIOR,
    *(OPS + name for name in ("reset_default_graph", "enable_eager_execution")),
)


def _ignore(original: Any) -> Callable[..., None]:
    return lambda *args, **kwargs: None


ANSWERS: Dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(IGNORED, _ignore),
    KERAS + "TPUDistributionStrategy.__new__": lambda original: tpu_answers.new_strategy,
}


@contextlib.contextmanager
def keras_on_one_device() -> Iterator[None]:
    """Let user code build its Keras model as if it had no TPU; everything is put back after."""
    with one_device(), answered(ANSWERS):
        yield
