"""The seam between batchinfer and a model runtime: restore a bundle, score arrays, close.

This is the TensorFlow runtime (1.15, or 2.x through `tf.compat.v1`); another runtime is
another class with `restore`, `score`, `batch_rows` and `close`.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import numpy as np

from batchinfer.batch import Rows, pad
from batchinfer.bundle import Bundle
from batchinfer.errors import BundleError, InputError
from batchinfer.ragged import Ragged
from batchinfer.signature import Signature

DEFAULT_BATCH_ROWS = 256  # fits images of 224x224x3 in 16 GB; measured sizes come with tuning


class Scorer:
    """A restored model: `score(feeds) -> arrays`, safe to call from several threads.

    Make one with `Scorer.restore`.

    Attributes:
        signature: what `score` takes and gives.
        batch_rows: the leading size that the graph is always run with, in rows.
    """

    def __init__(self, session: Any, signature: Signature, batch_rows: int) -> None:
        self.signature = signature
        self.batch_rows = batch_rows
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
    ) -> Scorer:
        """Load the bundle's graph, variables, assets and tables into a session of its own.

        Args:
            bundle: an opened (so: checked) bundle.
            batch_rows: rows per run; None is the model's own fixed size, else 256.
            intra_op_threads: threads inside one op; 0 lets TensorFlow take every core.
            gpu_memory_fraction: share of the GPU's memory for this session when several
                actors share one; 0 grows as needed.
            outputs: those that are wanted; the others are neither computed nor fetched.

        Raises:
            InputError: `batch_rows` is not positive, or not the fixed size of the graph.
            BundleError: TensorFlow cannot load the SavedModel, or a tensor of the signature is not
                in it or of another dtype there.
        """
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
            return cls(session, signature, batch_rows)
        except (tf.errors.OpError, OSError, ValueError, KeyError, RuntimeError) as error:
            session.close()
            raise BundleError(
                f"TensorFlow {tf.__version__} cannot load bundle {bundle.path}: {error}"
            ) from error

    def score(self, feeds: Mapping[str, Rows]) -> dict[str, np.ndarray[Any, Any]]:
        """Score up to `batch_rows` rows; what is missing is padded and cut off again.

        Args:
            feeds: n rows per input, 1 <= n <= batch_rows: an array of shape (n, *row_shape), or
                `Ragged` where the rows of an input differ in length.

        Returns:
            One array of n rows per output, by name.

        Raises:
            InputError: n is out of range, or an output did not come back row by row.
        """
        rows = [feeds[spec.name] for spec in self.signature.inputs]
        num_rows = len(rows[0])
        padded = [pad(one, self.batch_rows) for one in rows]
        results = self._run(*[array for one in padded for array in _arrays(one)])
        for spec, result in zip(self.signature.outputs, results):
            shape = np.shape(result)
            if shape[:1] != (self.batch_rows,):
                raise InputError(
                    f"output {spec} gave shape {shape} for a batch of {self.batch_rows}; "
                    "expected one row per input row"
                )
        return {
            spec.name: result[:num_rows] for spec, result in zip(self.signature.outputs, results)
        }

    def score_all(
        self, feeds: Mapping[str, np.ndarray[Any, Any]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Score any number of rows, at least one, in batches of `batch_rows`."""
        num_rows = len(next(iter(feeds.values())))
        parts = [
            self.score(
                {name: array[start : start + self.batch_rows] for name, array in feeds.items()}
            )
            for start in range(0, num_rows, self.batch_rows)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def close(self) -> None:
        self._session.close()


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
