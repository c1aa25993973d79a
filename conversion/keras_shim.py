"""What Keras code says about TPUs and sessions, answered for one device while a model is built.

Classes are answered by their `__new__`, so that it does not matter under which name user code
imported them; functions are replaced wherever TensorFlow 1.15 offers them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from typing import Any, Iterator, List, Tuple

# module -> names; classes of which user code only needs to have one.
STRATEGIES = {
    "tensorflow.python.distribute.tpu_strategy": ("TPUStrategy", "TPUStrategyV1"),
    "tensorflow.contrib.tpu.python.tpu.keras_support": ("TPUDistributionStrategy",),
}
RESOLVERS = {
    "tensorflow.python.distribute.cluster_resolver.tpu_cluster_resolver": ("TPUClusterResolver",),
}
# Would connect to a TPU, throw away the graph that is being built, or leave graph mode.
IGNORED = {
    "tensorflow.python.tpu.tpu_strategy_util": ("initialize_tpu_system",),
    "tensorflow.python.eager.remote": ("connect_to_remote_host", "connect_to_cluster"),
    "tensorflow.python.keras.backend": ("clear_session", "set_session"),
    "tensorflow.python.framework.ops": (
        "reset_default_graph",
        "enable_eager_execution",
        "enable_eager_execution_internal",
    ),
    "tensorflow.python.compat.v2_compat": ("enable_v2_behavior", "enable_v2_tensorshape"),
}
UNCHANGED_MODEL = {"tensorflow.contrib.tpu.python.tpu.keras_support": ("tpu_model",)}


class OneDevice:
    """A strategy, or a cluster resolver, of one device: scopes that change nothing."""

    num_replicas_in_sync = 1

    @contextlib.contextmanager
    def scope(self) -> Iterator[OneDevice]:
        yield self

    def experimental_run_v2(self, fn: Any, args: Any = (), kwargs: Any = None) -> Any:
        return fn(*args, **(kwargs or {}))

    run = experimental_run_v2

    def reduce(self, reduce_op: Any, value: Any, axis: Any = None) -> Any:
        return value

    def experimental_distribute_dataset(self, dataset: Any) -> Any:
        return dataset

    def master(self, *_: Any, **__: Any) -> str:
        return ""

    get_master = master

    def cluster_spec(self) -> None:
        return None


@contextlib.contextmanager
def keras_on_one_device() -> Iterator[None]:
    """Let user code build its Keras model as if it had no TPU; everything is put back after."""
    importlib.import_module("tensorflow.contrib.tpu")  # else lazily, behind the changes' back
    undo: List[Tuple[Any, str, Any, bool]] = []
    try:
        for module, names in [*STRATEGIES.items(), *RESOLVERS.items()]:
            for name in names:
                found = getattr(importlib.import_module(module), name)
                undo.append((found, "__new__", found.__dict__.get("__new__"), True))
                found.__new__ = _answer
        for table, answer in ((IGNORED, _ignore), (UNCHANGED_MODEL, _same_model)):
            for module, names in table.items():
                for name in names:
                    found = getattr(importlib.import_module(module), name, None)
                    if found is not None:
                        undo += _replaced(found, answer)
        yield
    finally:
        for owner, name, value, is_class in reversed(undo):
            if is_class and value is None:
                del owner.__new__
            else:
                setattr(owner, name, value)


def _answer(cls: Any, *_: Any, **__: Any) -> OneDevice:
    return OneDevice()


def _ignore(*_: Any, **__: Any) -> None:
    return None


def _same_model(model: Any, strategy: Any = None) -> Any:
    return model


def _replaced(function: Any, answer: Any) -> List[Tuple[Any, str, Any, bool]]:
    """Put the answer wherever TensorFlow's modules hold the function; returns how to undo it."""
    undo: List[Tuple[Any, str, Any, bool]] = []
    for name, module in list(sys.modules.items()):
        if name.startswith("tensorflow") and module is not None:
            for key, value in list(vars(module).items()):
                if value is function:
                    undo.append((module, key, value, False))
                    setattr(module, key, answer)
    return undo
