"""`--preprocess`: a user's function from Parquet columns to the model's inputs, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Sequence

import numpy as np

from batchinfer.arrow import pa
from batchinfer.errors import ShardError
from batchinfer.hook_arrays import checked
from batchinfer.hooks import BadRows, Hook
from batchinfer.kept import column_of
from batchinfer.ragged import Ragged
from batchinfer.signature import TensorSpec


@dataclass(frozen=True)
class Preprocess:
    """The hook and the columns that it is given, in this order; small and picklable."""

    hook: Hook
    columns: tuple[str, ...]


@dataclass
class Feeder:
    """Calls the hook for the batches of one shard.

    A dimension that the model leaves open has one size in all of a shard's batches, because
    batches are joined.

    Attributes:
        inputs: what the model takes.
    """

    preprocess: Preprocess
    inputs: Sequence[TensorSpec]
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    def feeds(self, batch: pa.RecordBatch) -> tuple[dict[str, Any], dict[int, str]]:
        """The model's inputs of those rows that can be fed, and why the others cannot.

        Raises:
            ShardError: the hook raised, or returned something else than the model takes.
        """
        columns = self.preprocess.columns
        given = pa.RecordBatch.from_arrays([column_of(batch, n) for n in columns], list(columns))
        rows, bad = np.arange(batch.num_rows), {}
        while len(rows):
            try:
                feeds = self._call(given)
            except BadRows as error:
                mask = self._rejected(error, len(rows))
                bad.update({int(rows[row]): why for row, why in error.reasons.items()})
                rows, given = rows[~mask], given.filter(pa.array(~mask))
            else:
                return feeds, bad
        return {}, bad

    def _call(self, given: pa.RecordBatch) -> dict[str, Any]:
        hook = self.preprocess.hook
        with hook.blamed():
            found = hook.function(given)
        feeds = checked(hook, found, self.inputs, given.num_rows)
        for name, array in feeds.items():
            if isinstance(array, Ragged):
                continue
            first = self._shapes.setdefault(name, array.shape[1:])
            if first != array.shape[1:]:
                raise ShardError(
                    f"{hook} returned rows of shape {list(array.shape[1:])} for {name!r}, and of "
                    f"{list(first)} before; expected one shape in all batches"
                )
        return feeds

    def _rejected(self, error: BadRows, num_rows: int) -> np.ndarray[Any, Any]:
        mask = np.zeros(num_rows, dtype=bool)
        unknown = [row for row in error.reasons if not 0 <= row < num_rows]
        if unknown or not error.reasons:
            raise ShardError(
                f"{self.preprocess.hook} raised BadRows with rows {unknown}; expected at least one "
                f"from 0 to {num_rows - 1}"
            )
        mask[list(error.reasons)] = True
        return mask
