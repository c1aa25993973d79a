"""What the functions of TF 1.15's TPU API do when there is one device.

A computation over N shards of a batch is done once over the whole batch; N replicas with inputs of
their own are built one after the other and share variables. Sums over more than one replica are
not guessed at: within N > 1 they are refused, elsewhere the op stays for `surgery` to judge.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.code.user_code import call_accepted

_WIDTH = [1]  # shards of the computation that is being built; the innermost last


def tpu_context() -> Any:
    """TensorFlow's own record of how many shards are being built."""
    return importlib.import_module("tensorflow.python.tpu.tpu_function").get_tpu_context()


def replicate(
    computation: Any,
    inputs: Optional[Sequence[Any]] = None,
    infeed_queue: Any = None,
    device_assignment: Any = None,
    name: Optional[str] = None,
    maximum_shapes: Any = None,
) -> List[Any]:
    """The outputs by replica.

    Raises:
        InputError: the computation is fed by an infeed queue.
    """
    if infeed_queue is not None:
        raise InputError(
            "the model takes its features from an InfeedQueue; expected them as arguments. Build "
            "the model without its input loop"
        )
    replicas = [[]] if inputs is None else list(inputs)
    counts = dict(_scope_counts())
    found = []
    for index, one in enumerate(replicas):
        with _of_width(len(replicas)), contextlib.ExitStack() as stack:
            if index:  # the same names again, for the same variables
                _scope_counts().clear()
                _scope_counts().update(counts)
                stack.enter_context(tf.variable_scope(tf.get_variable_scope(), reuse=True))
            found.append(_outputs(computation, one))
    return found


def split_compile_and_replicate(
    computation: Any, inputs: Any = None, *args: Any, **kwargs: Any
) -> Tuple[Any, List[Any]]:
    kwargs.pop("use_tpu", None)
    return tf.no_op(), replicate(computation, inputs, *args[:3], **kwargs)


def rewrite(
    computation: Any,
    inputs: Optional[Sequence[Any]] = None,
    infeed_queue: Any = None,
    device_assignment: Any = None,
    name: Optional[str] = None,
) -> Any:
    """The outputs of one replica."""
    return replicate(computation, None if inputs is None else [inputs], infeed_queue)[0]


def shard(
    computation: Any,
    inputs: Optional[Sequence[Any]] = None,
    num_shards: int = 1,
    input_shard_axes: Any = None,
    outputs_from_all_shards: Any = True,
    output_shard_axes: Any = None,
    infeed_queue: Any = None,
    device_assignment: Any = None,
    name: Optional[str] = None,
) -> Any:
    """The outputs for the whole batch: what concatenating those of its shards gives.

    Raises:
        InputError: the outputs of some shard alone are asked for, of more than one.
    """
    several = outputs_from_all_shards
    if num_shards > 1 and not (all(several) if isinstance(several, (list, tuple)) else several):
        raise InputError(
            f"the model takes the outputs of one of {num_shards} shards, a part of the rows; "
            "expected outputs_from_all_shards=True, or one shard"
        )
    with _of_width(num_shards):
        return rewrite(computation, inputs, infeed_queue)


def split_compile_and_shard(*args: Any, **kwargs: Any) -> Tuple[Any, Any]:
    return tf.no_op(), shard(*args, **kwargs)


def batch_parallel(
    computation: Any,
    inputs: Optional[Sequence[Any]] = None,
    num_shards: int = 1,
    infeed_queue: Any = None,
    device_assignment: Any = None,
    name: Optional[str] = None,
) -> Any:
    return shard(computation, inputs, num_shards, infeed_queue=infeed_queue)


def outside_compilation(computation: Any, *args: Any, **kwargs: Any) -> Any:
    return computation(*args, **kwargs)


def initialize_system(*args: Any, **kwargs: Any) -> Any:
    return tf.constant("")  # a serialized topology, which a session would return


def shutdown_system(job: Optional[str] = None) -> Any:
    return tf.no_op()


def cross_replica_sum(original: Any) -> Any:
    def answer(x: Any, group_assignment: Any = None, name: Optional[str] = None) -> Any:
        if _alone("cross_replica_sum", group_assignment):
            return tf.identity(x, name=name)
        return original(x, group_assignment, name)

    return answer


def all_to_all(original: Any) -> Any:
    def answer(
        x: Any,
        concat_dimension: int,
        split_dimension: int,
        split_count: int,
        group_assignment: Any = None,
        name: Optional[str] = None,
    ) -> Any:
        if _alone("all_to_all", group_assignment) and split_count == 1:
            return tf.identity(x, name=name)
        return original(x, concat_dimension, split_dimension, split_count, group_assignment, name)

    return answer


def collective_permute(original: Any) -> Any:
    def answer(x: Any, source_target_pairs: Any, name: Optional[str] = None) -> Any:
        _alone("collective_permute", None)
        if tf.get_static_value(tf.convert_to_tensor(source_target_pairs)).tolist() == [[0, 0]]:
            return tf.identity(x, name=name)
        return original(x, source_target_pairs, name)

    return answer


def call_computation(computation_inputs: Any, computation: Any, batch_config: Any = None) -> Any:
    return _listed(computation(computation_inputs))


def inference_on_tpu(
    computation: Any, inputs_to_tpu: Sequence[Any], *args: Any, **kwargs: Any
) -> Any:
    """Without the batching: that is the scorer's work."""
    return rewrite(computation, inputs_to_tpu)


def model_fn_inference_on_tpu(
    model_fn: Any,
    features: Any,
    labels: Any = None,
    config: Any = None,
    params: Any = None,
    batch_config: Any = None,
) -> Any:
    """The spec that the model_fn gives."""
    offered: Mapping[str, Any] = {
        "labels": labels,
        "mode": tf.estimator.ModeKeys.PREDICT,
        "params": params,
        "config": config,
    }
    return call_accepted(model_fn, "the model_fn of model_fn_inference_on_tpu", features, offered)


def new_strategy(cls: Any, *args: Any, **kwargs: Any) -> Any:
    """TensorFlow's default strategy, of one replica, in place of a TPUStrategy."""
    return tf.distribute.get_strategy()


@contextlib.contextmanager
def _of_width(shards: int) -> Iterator[None]:
    _WIDTH.append(max(_WIDTH[-1], shards))
    try:
        yield
    finally:
        _WIDTH.pop()


def _alone(function: str, group_assignment: Any) -> bool:
    """Whether each replica is the only one of its group.

    Raises:
        InputError: more than one shard is being built.
    """
    shards = max(_WIDTH[-1], tpu_context().number_of_shards or 1)
    if shards > 1:
        raise InputError(
            f"{function} takes values from {shards} shards that the model asks for; on one device "
            "there is one. Build the model with one shard, or convert the graph that the TPU ran"
        )
    if group_assignment is None:
        return True
    groups = tf.get_static_value(tf.convert_to_tensor(group_assignment))
    return groups is not None and groups.shape[-1] == 1


def _scope_counts() -> Any:
    """How often each default name of a variable scope was taken in this graph."""
    scopes = importlib.import_module("tensorflow.python.ops.variable_scope")
    return scopes.get_variable_scope_store().variable_scopes_count


def _outputs(computation: Any, inputs: Sequence[Any]) -> Any:
    """What tpu.rewrite returns for what a computation gives.

    A structure stays as it is; one value becomes a list; operations are dropped from a list and
    run before its tensors; with nothing but operations, one operation that runs them.
    """
    given = tf.nest.map_structure(tf.convert_to_tensor, list(inputs))
    outputs = computation(*given)
    if isinstance(outputs, dict) or (
        isinstance(outputs, (list, tuple))
        and any(isinstance(one, (list, tuple, dict)) for one in outputs)
    ):
        return tf.nest.map_structure(tf.convert_to_tensor, outputs)
    listed = _listed(outputs)
    operations = [one for one in listed if isinstance(one, tf.Operation)]
    tensors = [one for one in listed if not isinstance(one, tf.Operation)]
    if not tensors:
        return tf.group(*operations)
    with tf.control_dependencies(operations):
        return [tf.identity(tf.convert_to_tensor(one)) for one in tensors]


def _listed(outputs: Any) -> List[Any]:
    if outputs is None:
        return []
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
