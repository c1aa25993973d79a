"""The seam between batchinfer and a model runtime: restore a bundle, score arrays, close.

This is the TensorFlow runtime (1.15, or 2.x through `tf.compat.v1`); another runtime is
another class with `restore`, `score`, `batch_rows` and `close`.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Mapping, Optional, Sequence

import numpy as np

from batchinfer.batch import Rows, pad, padded_rows
from batchinfer.bundle import Bundle
from batchinfer.errors import BundleError, InputError
from batchinfer.ragged import Ragged
from batchinfer.signature import Signature

XLA_ON_CPU = "--tf_xla_cpu_global_jit"
DEFAULT_BATCH_ROWS = 256  # fits images of 224x224x3 in 16 GB; actors measure a better one


class Scorer:
    """A restored model: `score(feeds) -> arrays`, safe to call from several threads.

    Make one with `Scorer.restore`.

    Attributes:
        signature: what `score` takes and gives.
        batch_rows: rows of one run of the graph; it may be set, and is halved when the device has
            no memory for it.
        halved: how often that was.
        refused: what `score` raises when an op refuses a row: a JPEG that is none, an index that is
            too large.
        padding: what a shorter batch is padded to, one of `batch.PADDINGS`. A graph with a fixed
            size always gets that.
    """

    def __init__(
        self, session: Any, signature: Signature, batch_rows: int, padding: str = "batch"
    ) -> None:
        from batchinfer.tf1 import tf

        self.signature = signature
        self.batch_rows = batch_rows
        self.halved = 0
        self.padding = "batch" if signature.fixed_batch_rows is not None else padding
        self.refused = (
            tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError, tf.errors.DataLossError,
        )  # fmt: skip
        self._exhausted = tf.errors.ResourceExhaustedError
        self._lock = threading.Lock()
        self._session = session
        self._run = session.make_callable(
            [spec.tensor for spec in signature.outputs],
            feed_list=[tensor for spec in signature.inputs for tensor in spec.fed],
        )

    @classmethod
    def restore(
        cls,
        bundle: Bundle,
        batch_rows: Optional[int] = None,
        intra_op_threads: int = 0,
        gpu_memory_fraction: float = 0.0,
        outputs: Optional[Sequence[str]] = None,
        padding: str = "batch",
        xla: bool = False,
    ) -> Scorer:
        """Load the bundle's graph, variables, assets and tables into a session of its own.

        Args:
            bundle: an opened (so: checked) bundle.
            batch_rows: rows per run; None is the model's own fixed size, else 256.
            intra_op_threads: threads inside one op; 0 lets TensorFlow take every core.
            gpu_memory_fraction: share of the GPU's memory for this session when several
                actors share one; 0 grows as needed.
            outputs: those that are wanted; the others are neither computed nor fetched.
            padding: see the attribute.
            xla: compile clusters of ops with XLA, anew for each number of rows.

        Raises:
            InputError: `batch_rows` is not positive, or not the fixed size of the graph.
            BundleError: TensorFlow cannot load the SavedModel, or a tensor of the signature is not
                in it or of another dtype there.
        """
        if xla:
            _allow_xla_on_cpu()
        from batchinfer.tf1 import register_ops, tf

        register_ops(bundle.manifest.get("contrib_ops", ()))
        signature = bundle.signature
        batch_rows = choose_batch_rows(signature, batch_rows)
        if outputs is not None:
            signature = signature.with_outputs(outputs)
        config = tf.ConfigProto(
            allow_soft_placement=True,
            intra_op_parallelism_threads=intra_op_threads,
        )
        if xla:
            config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_2
        config.gpu_options.allow_growth = True
        if gpu_memory_fraction:
            config.gpu_options.per_process_gpu_memory_fraction = gpu_memory_fraction
        session = tf.Session(graph=tf.Graph(), config=config)
        try:
            with session.graph.as_default():
                tf.saved_model.loader.load(session, [tf.saved_model.SERVING], bundle.path)
            problem = _dtype_problem(session.graph, signature)  # make_callable does not look
            if problem:
                raise ValueError(problem)
            return cls(session, signature, batch_rows, padding)
        except (tf.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
            session.close()
            raise BundleError(
                f"TensorFlow {tf.__version__} cannot load bundle {bundle.path}: {error}"
            ) from error

    def score(self, feeds: Mapping[str, Rows]) -> dict[str, np.ndarray[Any, Any]]:
        """Score any number of rows, at least one, `batch_rows` at a time.

        Args:
            feeds: n rows per input: an array of shape (n, *row_shape), or `Ragged` where the rows
                of an input differ in length.

        Returns:
            One array of n rows per output, by name.

        Raises:
            InputError: n is 0, or an output did not come back row by row.
        """
        rows = [feeds[spec.name] for spec in self.signature.inputs]
        num_rows, done, parts = len(rows[0]), 0, []
        if not num_rows:
            raise InputError("a batch needs at least one row; found none")
        while done < num_rows:
            size = self.batch_rows
            whole = not done and size >= num_rows  # others may set `batch_rows` meanwhile
            piece = rows if whole else [one[done : done + size] for one in rows]
            try:
                parts.append(self._score(piece, size))
            except self._exhausted:
                if size == 1 or self.signature.fixed_batch_rows is not None:
                    raise
                self._halve(size)
                continue
            done += len(piece[0])
        names = [spec.name for spec in self.signature.outputs]
        if len(parts) == 1:
            return dict(zip(names, parts[0]))
        return {name: _joined(name, found) for name, found in zip(names, zip(*parts))}

    def _score(self, rows: Sequence[Rows], size: int) -> list[np.ndarray[Any, Any]]:
        """One run of the graph; what is missing is padded and cut off again."""
        num_rows = len(rows[0])
        size = padded_rows(num_rows, size, self.padding)
        padded = [pad(one, size) for one in rows]
        results = self._run(*[array for one in padded for array in _arrays(one)])
        for spec, result in zip(self.signature.outputs, results):
            shape, wanted = np.shape(result), (size, *spec.row_shape)
            if len(shape) != len(wanted) or any(w not in (None, n) for w, n in zip(wanted, shape)):
                raise InputError(
                    f"output {spec} gave shape {shape} for a batch of {size}; "
                    f"expected one row per input row, {list(wanted)}"
                )
        return [result[:num_rows] for result in results]

    def _halve(self, size: int) -> None:
        """Go on with half the batch, after the device had no memory for `size` rows."""
        with self._lock:
            if self.batch_rows == size:  # another thread may have been faster
                self.batch_rows = (size + 1) // 2
                self.halved += 1

    def close(self) -> None:
        self._session.close()


def _allow_xla_on_cpu() -> None:
    """TensorFlow clusters ops for XLA on a CPU only with this flag, read at its first session."""
    flags = os.environ.get("TF_XLA_FLAGS", "")
    if XLA_ON_CPU not in flags:
        os.environ["TF_XLA_FLAGS"] = f"{flags} {XLA_ON_CPU}".strip()


def _joined(name: str, parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise InputError(
            f"output {name} has rows of shapes {sorted(shapes)} in the parts of one batch, which "
            "was too large for the device. Its rows depend on those beside them; set --batch-rows "
            f"to {len(parts[0])} or less, so that no batch is divided."
        )
    return np.concatenate(parts)


def _arrays(rows: Rows) -> list[np.ndarray[Any, Any]]:
    """What the graph is fed, in the order of `TensorSpec.fed`."""
    return [rows.padded(), rows.lengths] if isinstance(rows, Ragged) else [rows]


def _dtype_problem(graph: Any, signature: Signature) -> Optional[str]:
    """Every tensor of the signature that has another dtype in the graph, in words.

    Fed or written as the signature says, its values would be turned into others in silence.

    Raises:
        KeyError, ValueError: a tensor is not in the graph.
    """
    lines = []
    for spec in signature.inputs + signature.outputs:
        found = graph.get_tensor_by_name(spec.tensor).dtype.base_dtype.name
        if found != spec.dtype:
            lines.append(f"{spec.name} ({spec.tensor}) is {found}, the signature says {spec.dtype}")
        if spec.lengths and graph.get_tensor_by_name(spec.lengths).dtype.name != "int64":
            lines.append(f"{spec.name}: its lengths ({spec.lengths}) are not int64")
    return "; ".join(lines) or None


def choose_batch_rows(signature: Signature, wanted: Optional[int]) -> int:
    """The rows per run: the graph's fixed size, else what is wanted, else 256."""
    fixed = signature.fixed_batch_rows
    if wanted is not None and wanted < 1:
        raise InputError(f"batch_rows must be at least 1; found {wanted}")
    if fixed is not None and wanted not in (None, fixed):
        raise InputError(
            f"this bundle's graph only runs with batches of {fixed} rows; found batch_rows "
            f"{wanted}. Leave it out: shorter batches are padded."
        )
    return fixed or wanted or DEFAULT_BATCH_ROWS
