"""A loaded model -> whether its rows are scored each on its own, and in batches of which sizes.

A graph of `tpu.rewrite` only knows the batch size it was traced with. Whether it gives the same
predictions in batches of other sizes is not read from the graph but tried, row by row.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.proof.row_outputs import WAY_OUT
from conversion.proof.rows import joined, taken
from conversion.proof.synthetic import Draw, extremes
from conversion.proof.tolerance import ordinary

Run = Callable[[Mapping[str, Any]], Dict[str, Any]]

# Of the largest value of an output. At one size, kernels and places stay the same, and so do the
# bits of a row; between sizes the order of sums changes (2e-6 measured between 1 and 256 rows).
NEIGHBOURS_OF_SCALE = 1e-6
SIZES_OF_SCALE = 1e-5
SECONDS = 60.0  # after which no further size is tried
BYTES = 256 << 20  # of the inputs of one run
SECOND_SEED = 21  # of the rows that others are scored beside
SAME = "every row gave the same outputs for these inputs"
NOT_RUN = "could not be run: "
OPEN_ROWS = 8  # rows of a probed batch where the graph leaves them open


@dataclass(frozen=True)
class Batch:
    """How many rows the bundle's graph is run with, and whether that changes a prediction.

    Attributes:
        rows: the only size that the graph runs with; None when any does.
        rows_independent: a row's prediction does not depend on its place or on the other rows;
            None when that was not tried, or other sizes gave other values without it showing.
        probed: the sizes that gave the same rows.
        why: what was found, in words.
    """

    rows: Optional[int]
    rows_independent: Optional[bool] = None
    probed: Tuple[int, ...] = ()
    why: str = "not probed"

    def to_json(self) -> Dict[str, Any]:
        return {
            "kind": "dynamic" if self.rows is None else "fixed",
            "rows": self.rows,
            "rows_independent": self.rows_independent,
            "probed": list(self.probed),
            "why": self.why,
        }

    def warnings(self) -> Tuple[str, ...]:
        """What the user must know before grouping rows in another way than training did."""
        if self.why == SAME or (self.rows_independent is None and self.probed):
            return (
                "whether the rows of a batch change each other's predictions is not known: "
                + self.why,
            )
        if self.rows_independent is not False:
            return ()
        return (
            f"the rows of a batch change each other's predictions: {self.why}. The scorer groups "
            "rows as they come and pads the last batch by repeating its last row, so predictions "
            "depend on what a row is scored with",
        )


def sizes(rows: int) -> Tuple[int, ...]:
    """The batch sizes to try beside `rows`."""
    return tuple(sorted({1, 3, rows - 1, rows + 1, 2 * rows} - {0, rows}))


class Rows:
    """Twice as many rows as a batch has, and what the model as it is gives for each.

    Attributes:
        batch_rows: rows of a batch of the model as it is.
    """

    def __init__(self, run: Run, first: Draw, second: Draw) -> None:
        """Run both draws, each of `batch_rows` rows."""
        self.batch_rows = first.rows
        self._inputs = {
            name: joined([array, second.arrays[name]]) for name, array in first.arrays.items()
        }
        parts = [run(self.inputs(range(start, start + self.batch_rows)))
                 for start in (0, self.batch_rows)]  # fmt: skip
        refuse_other_rows(parts[0], self.batch_rows)
        self._outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def inputs(self, rows: Any) -> Dict[str, Any]:
        return {name: taken(array, list(rows)) for name, array in self._inputs.items()}

    def all_same(self) -> bool:
        """Whether no output, or none of floats where there are any, tells a row from another."""
        arrays = list(self._outputs.values())
        told = [array for array in arrays if array.dtype.kind == "f"] or arrays
        return not any(_varies(array) for array in told)

    def company_matters(self, run: Run, kept: List[int], others: List[int]) -> str:
        """Score rows beside short, zero and large ones; how the company changes them, or "".

        The rows looked at are plain, then short: a full row alone is the longest of any batch.
        A company that fails, or makes the rows looked at not finite, shows nothing.
        """
        changed = dict(extremes(self._inputs))
        plain = self._inputs
        for looked_at in [plain] + [changed[what] for what in ("short",) if what in changed]:
            try:
                before = run(_beside(looked_at, kept, plain, others))
            except (tf.errors.OpError, ValueError):
                continue
            for what, company in changed.items():
                try:
                    found = run(_beside(looked_at, kept, company, others))
                except (tf.errors.OpError, ValueError):
                    continue
                problem = self._changed(before, found, len(kept))
                if problem:
                    return f"{problem} when its row was scored beside {what} rows"
        return ""

    def _changed(self, before: Mapping[str, Any], found: Mapping[str, Any], kept: int) -> str:
        problems = []
        for name, expected in self._outputs.items():
            one, other = found[name][:kept], before[name][:kept]
            if one.dtype.kind == "f" and not np.isfinite(one[np.isfinite(other)]).all():
                return ""
            problem = _differ(one, other, NEIGHBOURS_OF_SCALE * _scale(expected))
            problems += [f"output {name} {problem}"] if problem else []
        return problems[0] if problems else ""

    def differ(
        self, run: Run, rows: List[int], of_scale: float, looked_at: Optional[List[int]] = None
    ) -> str:
        """Run these rows as one batch; how they differ from what they gave before, or ""."""
        found = run(self.inputs(rows))
        places = range(len(rows)) if looked_at is None else looked_at
        for name, expected in self._outputs.items():
            if np.shape(found.get(name))[:1] != (len(rows),):
                shape = list(np.shape(found.get(name)))
                return f"output {name} gave shape {shape} for a batch of {len(rows)}"
            one = found[name][list(places)]
            other = expected[[rows[place] for place in places]]
            problem = _differ(one, other, of_scale * _scale(expected))
            if problem:
                return f"output {name} {problem}"
        return ""


def _beside(
    one: Mapping[str, Any], kept: List[int], other: Mapping[str, Any], rest: List[int]
) -> Dict[str, Any]:
    return {name: joined([taken(one[name], kept), taken(other[name], rest)]) for name in one}


def _varies(array: Any) -> bool:
    first = np.broadcast_to(array[:1], array.shape)
    same = array == first
    if array.dtype.kind == "f":
        same = same | (np.isnan(array) & np.isnan(first))
    return not bool(np.all(same))


def _scale(values: Any) -> float:
    """The largest value but for sentinels; 0 of what is no float, which has to be equal."""
    if values.dtype.kind != "f":
        return 0.0
    return float(np.abs(ordinary(values.astype(np.float64))).max(initial=0.0))


def _differ(found: Any, expected: Any, allowed: float) -> str:
    if found.dtype.kind != "f":
        return "" if np.array_equal(found, expected) else "gave other values"
    one, other = found.astype(np.float64), expected.astype(np.float64)
    if one.shape != other.shape:
        return f"gave rows of shape {list(one.shape[1:])}, not {list(other.shape[1:])}"
    finite = np.isfinite(other)
    if not np.array_equal(finite, np.isfinite(one)):
        return "gave NaN or infinity in other places"
    most = np.abs(one[finite] - other[finite]).max(initial=0.0)
    return "" if most <= allowed else f"differed by {most:.2g} where {allowed:.2g} is rounding"


def dependence(run: Run, rows: Rows) -> str:
    """How rows depend on their batch at the size as it is; "" when they do not.

    Each row is scored again beside other rows, then in another place, then with the rest of
    its batch filled with copies of one row, as the scorer pads; then among copies of itself, in
    several orders, and beside short, zero and large rows.
    """
    size = rows.batch_rows
    even, odd = list(range(0, size, 2)), list(range(1, size, 2))
    mixed = [[row if row in kept else row + size for row in range(size)] for kept in (even, odd)]
    half = max(1, size // 2)
    turned = list(range(1, size)) + [0]
    padded = list(range(half)) + [half - 1] * (size - half)
    cases = [
        ("beside other rows", mixed[0], even),
        ("beside other rows", mixed[1], odd),
        ("in another place of the batch", turned, None),
        ("in a batch padded with its last row", padded, list(range(half))),
    ]
    for what, numbers, looked_at in cases if size > 1 else ():
        problem = rows.differ(run, numbers, NEIGHBOURS_OF_SCALE, looked_at)
        if problem:
            return f"{problem} when its row was scored {what}"
    if size == 1:
        return ""
    for what, numbers in _groupings(size):
        try:
            problem = rows.differ(run, numbers, SIZES_OF_SCALE)
        except (tf.errors.OpError, ValueError) as error:
            problem = NOT_RUN + short(error)
        if problem:
            return f"{problem} when its row was scored {what}"
    return rows.company_matters(run, even, [row + size for row in odd])


def _groupings(size: int) -> List[Tuple[str, List[int]]]:
    """Batches of `size` of twice as many rows: copies of one, and other orders."""
    pool = 2 * size
    orders = [[(7 * place + 1) % pool for place in range(size)], list(range(size))[::-1]]
    orders += [list(np.random.RandomState(seed).permutation(pool)[:size]) for seed in range(3)]
    copies = [[row] * size for row in sorted({0, size - 1, pool - 1})]
    return [("among copies of itself", rows) for rows in copies] + [
        ("with other rows in another order", rows) for rows in orders
    ]


def other_sizes(run: Run, rows: Rows, row_bytes: int) -> Tuple[Tuple[int, ...], str]:
    """Run batches of other sizes, and one of the same size in another order.

    Returns:
        The sizes that gave the same rows, and what was wrong with the first that did not.
    """
    started = time.monotonic()
    good: List[int] = []
    pool = 2 * rows.batch_rows
    for size in (rows.batch_rows, *sizes(rows.batch_rows)):
        late = time.monotonic() - started > SECONDS or size * row_bytes > BYTES
        if late and len(good) > 1:
            continue
        numbers = [(7 * place + 1) % pool if pool > 2 else place % pool for place in range(size)]
        try:
            problem = rows.differ(run, numbers, SIZES_OF_SCALE)
        except (tf.errors.OpError, ValueError) as error:
            problem = NOT_RUN + short(error)
        if problem:
            return tuple(sorted(good)), f"a batch of {size}: {problem}"
        good.append(size)
    problem = ""
    if pool * row_bytes <= BYTES:
        kept, others = list(range(0, pool, 2)), list(range(1, pool, 2))
        problem = rows.company_matters(run, kept, others)
    return tuple(sorted(good)), problem and f"a batch of {pool}: {problem}"


def gave_other_values(problem: str) -> bool:
    """Whether a batch of another size ran, and its rows were not the same."""
    return problem.startswith("a batch of ") and NOT_RUN not in problem


def refuse_other_rows(outputs: Mapping[str, Any], rows: int) -> None:
    """Raise unless every output has one row per input row.

    Raises:
        InputError: with every output that has not.
    """
    wrong = {
        name: list(np.shape(value))
        for name, value in sorted(outputs.items())
        if np.shape(value)[:1] != (rows,)
    }
    if wrong:
        listed = ", ".join(f"{name} gave shape {shape}" for name, shape in wrong.items())
        raise InputError(
            f"for a batch of {rows} rows {listed}; expected one row per input row. {WAY_OUT}"
        )


def short(error: Exception) -> str:
    """The first line of what TensorFlow said."""
    return (getattr(error, "message", None) or str(error)).strip().splitlines()[0][:300]
