"""tf.tpu.* and tf.contrib.tpu.* of TF 1.15, answered for one device while a model is built.

What is not in `ANSWERS` works on one device as it is: `bfloat16_scope` (the bfloat16 that is left
in the graph becomes float32 later), `TPUEstimatorSpec`, `TPUConfig`, `repeat` and `while_loop`,
`CrossShardOptimizer` (it calls `cross_replica_sum`), and the columns of TPU embeddings, which look
up on the host where `_is_running_on_cpu` says so.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from typing import Any, Callable, Dict, Iterator, Optional

from conversion.code import tpu_answers
from conversion.code.answered import answered

TPU = "tensorflow.python.tpu.tpu:"
OPS = "tensorflow.python.tpu.ops.tpu_ops:"
ESTIMATOR = "tensorflow_estimator.python.estimator.tpu.tpu_estimator:"
DISTRIBUTE = "tensorflow.python.distribute."
RESOLVER = DISTRIBUTE + "cluster_resolver.tpu_cluster_resolver:TPUClusterResolver."
KERAS = "tensorflow.contrib.tpu.python.tpu.keras_support:"


def _instead(answer: Any) -> Callable[[Any], Any]:
    """An answer that does not ask the original."""
    return lambda original: answer


def _gives(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda *args, **kwargs: value


ANSWERS: Dict[str, Callable[[Any], Any]] = {
    TPU + "replicate": _instead(tpu_answers.replicate),
    TPU + "split_compile_and_replicate": _instead(tpu_answers.split_compile_and_replicate),
    TPU + "shard": _instead(tpu_answers.shard),
    TPU + "split_compile_and_shard": _instead(tpu_answers.split_compile_and_shard),
    TPU + "batch_parallel": _instead(tpu_answers.batch_parallel),
    TPU + "rewrite": _instead(tpu_answers.rewrite),
    TPU + "rewrite_for_inference": _instead(tpu_answers.rewrite),
    TPU + "validate_inference_rewrite_for_variables": _gives(None),
    TPU + "under_tpu_inference_context": _gives(False),
    TPU + "prune_unconnected_ops_from_xla": _gives(None),
    TPU + "outside_compilation": _instead(tpu_answers.outside_compilation),
    TPU + "core": _gives(""),  # a device name that places nothing
    TPU + "initialize_system": _instead(tpu_answers.initialize_system),
    TPU + "initialize_system_for_tpu_embedding": _instead(tpu_answers.initialize_system),
    TPU + "shutdown_system": _instead(tpu_answers.shutdown_system),
    OPS + "cross_replica_sum": tpu_answers.cross_replica_sum,
    OPS + "all_to_all": tpu_answers.all_to_all,
    OPS + "collective_permute": tpu_answers.collective_permute,
    ESTIMATOR + "call_computation": _instead(tpu_answers.call_computation),
    ESTIMATOR + "inference_on_tpu": _instead(tpu_answers.inference_on_tpu),
    ESTIMATOR + "model_fn_inference_on_tpu": _instead(tpu_answers.model_fn_inference_on_tpu),
    "tensorflow.python.compiler.xla.xla:compile": _instead(tpu_answers.rewrite),
    "tensorflow.python.tpu.feature_column:_is_running_on_cpu": _gives(True),
    "tensorflow.python.tpu.tpu_strategy_util:initialize_tpu_system": _gives(None),
    KERAS + "tpu_model": _instead(lambda model, strategy=None: model),
    DISTRIBUTE + "tpu_strategy:TPUStrategy.__new__": _instead(tpu_answers.new_strategy),
    DISTRIBUTE + "tpu_strategy:TPUStrategyV1.__new__": _instead(tpu_answers.new_strategy),
    RESOLVER + "__init__": _gives(None),
    RESOLVER + "__deepcopy__": _instead(lambda self, memo: self),
    RESOLVER + "master": _gives(""),
    RESOLVER + "get_master": _gives(""),
    RESOLVER + "get_job_name": _gives(None),
    RESOLVER + "cluster_spec": _gives(None),
    RESOLVER + "num_accelerators": _gives({"TPU": 1}),
}


@contextlib.contextmanager
def one_device(number_of_shards: Optional[int] = None) -> Iterator[None]:
    """Within, the TPU API builds for one device, wherever its names are bound already.

    Args:
        number_of_shards: what `get_tpu_context()` has: None as in a run without a TPU, or 1 as on
            a single core, for code that computes with it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tf.contrib itself, while it is imported
        importlib.import_module("tensorflow.contrib")  # registers ops, binds the names of old code
        importlib.import_module(KERAS[:-1])
    context = tpu_answers.tpu_context()
    before = context.number_of_shards
    with answered(ANSWERS):
        context.set_number_of_shards(number_of_shards)
        try:
            yield
        finally:
            context.set_number_of_shards(before)
