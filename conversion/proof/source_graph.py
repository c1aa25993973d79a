"""The source's own graph in a session on this machine: outputs that conversion did not touch."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional

import numpy as np

from batchinfer.batch import pad
from batchinfer.ragged import Ragged
from batchinfer.tf1 import tf
from conversion.graphs import tables
from conversion.graphs.graph import every_node
from conversion.graphs.tensors import Tensors, imported
from conversion.lowering import Lowered
from conversion.proof.bare import XLA_CPU, bare, widened
from conversion.proof.replica_runs import ReplicaRuns
from conversion.source import Source, tags_of
from conversion.tf_internals import without_bfloat16
from conversion.weights.specs import Assignment
from conversion.weights.variable_copy import groups
from conversion.weights.variables import variable_name

TIMEOUT_S = 300  # of one batch; a first bfloat16 pass compiles each convolution for the CPU
VARIABLES = ("VarHandleOp", "VariableV2", "Variable")


def session_config() -> Any:
    """Runs a graph as it is: only what is fetched is placed, and nothing is optimised.

    Grappler would make a Reciprocal of a division by a bfloat16 constant, for which TF 1.15 has
    no CPU kernel. Functions are inlined by TensorFlow before placement, because inside of a
    function nothing finds XLA's kernels for bfloat16.
    """
    config = tf.ConfigProto(allow_soft_placement=True, device_count={"GPU": 0, "XLA_GPU": 0})
    config.graph_options.place_pruned_graph = True
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
    config.graph_options.optimizer_options.do_function_inlining = True
    return config


class SourceGraph:
    """The source in a session: `run(inputs) -> outputs`.

    Attributes:
        how: how the variables came into it, and what was changed, for the manifest.
    """

    def __init__(
        self,
        source: Source,
        lowered: Lowered,
        chosen: Tensors,
        converted: str,
        plain: bool,
        widen: bool = False,
    ) -> None:
        """Load the source.

        Args:
            chosen: its inputs and outputs by name, as they are in the source.
            converted: prefix of the bundle's checkpoint, for variables that are not in the
                source's checkpoint as the graph reads them.
            plain: nothing asks for other variables than the source's own saver restores.
            widen: compute in float32 what the source computes in bfloat16.

        Raises:
            tf.errors.OpError, ValueError: TensorFlow cannot load it.
        """
        self._chosen = chosen
        original = source.meta_graph.graph_def
        graph_def = widened(bare(original)) if widen else bare(original)
        as_it_is = (
            plain
            and source.kind == "saved_model"
            and source.graph_file is not None  # else it was changed since it was read
            and not widen
            and _same(graph_def, original)
        )
        self._graph = tf.Graph() if as_it_is else imported(graph_def, source.path)
        self._session = tf.Session(graph=self._graph, config=session_config())
        with self._graph.as_default():
            if as_it_is:
                tf.saved_model.loader.load(self._session, list(tags_of(source)), source.path)
                self.how = "loaded by tf.saved_model.loader"
            else:
                self._restore(source, lowered, converted)
                self.how = "TPU ops bypassed, variables read from the checkpoint by name"
            self._outputs = {name: self._value(one) for name, one in chosen.outputs.items()}
        if widen:
            self.how += ", bfloat16 widened to float32"

    def _restore(self, source: Source, lowered: Lowered, converted: str) -> None:
        """Variables and lookup tables."""
        for assigns in _assignments(self._graph, lowered, converted):
            self._session.run(assigns)  # not all: their values would be in memory twice
        assets = {one.tensor: one.path for one in tables.assets(source, lowered.graph_def)}
        ops = [self._graph.get_operation_by_name(name) for name in lowered.initialisers]
        self._session.run(ops, assets)

    def _value(self, name: str) -> Any:
        """The tensor of an output; of a resource variable, what it holds."""
        tensor = self._graph.get_tensor_by_name(name)
        if tensor.op.type != "VarHandleOp":
            return tensor
        return tf.raw_ops.ReadVariableOp(resource=tensor, dtype=tensor.op.get_attr("dtype"))

    def run(self, inputs: Mapping[str, Any], batch_rows: Optional[int]) -> Dict[str, Any]:
        """All rows in batches of `batch_rows`, the last one padded; None runs them at once."""
        rows = len(next(iter(inputs.values())))
        size = batch_rows or rows
        parts = []
        for start in range(0, rows, size):
            batch = {name: array[start : start + size] for name, array in inputs.items()}
            kept = min(size, rows - start)
            padded = {name: pad(array, size) for name, array in batch.items()}
            parts.append({name: value[:kept] for name, value in self._run(padded).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run(self, inputs: Mapping[str, Any]) -> Dict[str, Any]:
        tensor = self._graph.get_tensor_by_name
        feeds = {
            tensor(fetched): array
            for name, rows in inputs.items()
            for fetched, array in self._fed(name, rows).items()
        }
        limit = tf.RunOptions(timeout_in_ms=TIMEOUT_S * 1000)

        def run(fetches: Any, fed: Any) -> Any:
            return self._session.run(fetches, fed, options=limit)

        found = ReplicaRuns(list(self._outputs.values())).fetch(run, self._outputs, feeds)
        return {name: without_bfloat16(array) for name, array in found.items()}

    def _fed(self, name: str, rows: Any) -> Dict[str, Any]:
        """By tensor name: the rows, or the three arrays of a SparseTensor that holds them."""
        if not isinstance(rows, Ragged):
            return {self._chosen.inputs[name]: rows}
        sparse, lengths = self._chosen.sparse[name], rows.lengths
        width = (sparse.shape or (None, None))[1] or int(lengths.max(initial=0))
        places = np.argwhere(np.arange(width) < lengths[:, np.newaxis])
        arrays = (rows.own_values, places, np.array([len(rows), width], np.int64))
        return dict(zip(sparse.tensors, arrays))

    def close(self) -> None:
        self._session.close()


def _same(made: Any, original: Any) -> bool:
    """Whether `made` differs in nothing but placement."""
    nodes = [[(node.name, node.op) for _, node in every_node(one)] for one in (made, original)]
    kept = all(node.device != XLA_CPU for _, node in every_node(made))
    return kept and nodes[0] == nodes[1]


def _assignments(graph: Any, lowered: Lowered, converted: str) -> List[List[Any]]:
    """Ops that read a variable and assign it, those of a group of variables together.

    Each run looks at the whole graph: one per variable took 60 s with 500 variables.
    """
    handles: Dict[str, List[Any]] = {}
    for op in graph.get_operations():
        if op.type in VARIABLES:
            handles.setdefault(variable_name(op.node_def), []).append(op)
    with graph.as_default():
        return [
            [
                _assign(op, one, lowered.checkpoint, converted)
                for one in group
                for op in handles.get(one.variable.spec.name, ())
            ]
            for group in groups(lowered.mapping.assignments)
        ]


def _assign(op: Any, assignment: Assignment, checkpoint: str, converted: str) -> Any:
    """Assign what the checkpoint holds, or the bundle where it holds that in another form."""
    dtype = op.get_attr("dtype")
    if len(assignment.pieces) == 1 and not assignment.steps:
        piece = assignment.pieces[0]
        prefix, name, where, stored = (
            checkpoint, piece.spec.name, piece.restore_slice, piece.spec.dtype
        )  # fmt: skip
    else:
        prefix, name, where, stored = (
            converted, assignment.target, "", assignment.variable.spec.dtype
        )  # fmt: skip
    value = tf.raw_ops.RestoreV2(
        prefix=prefix, tensor_names=[name], shape_and_slices=[where], dtypes=[tf.as_dtype(stored)]
    )[0]
    value = tf.cast(value, dtype) if value.dtype != dtype else value
    if op.type == "VarHandleOp":
        return tf.raw_ops.AssignVariableOp(resource=op.outputs[0], value=value)
    return tf.raw_ops.Assign(ref=op.outputs[0], value=value, validate_shape=False).op
