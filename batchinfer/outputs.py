"""The model's outputs -> the columns that are written of them: which, in which order, how ranked.

y: float32[?, 1000]   y            fixed_size_list<float>[1000]   as it is
--top-k y=5           y_top5_index fixed_size_list<int32>[5]      the best first
                      y_top5_value fixed_size_list<float>[5]
--argmax y            y_argmax     int32
--labels FILE         y_top5_label fixed_size_list<string>[5], y_label string
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Sequence

import numpy as np

from batchinfer.arrow import pa
from batchinfer.errors import InputError
from batchinfer.options import COMPRESSIONS, OutputOptions
from batchinfer.postprocess import Postprocess, TextSpec
from batchinfer.ranking import argmax, top_k
from batchinfer.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Ranked:
    """The best classes of one output.

    Attributes:
        spec: of shape (n, classes).
        k: how many are written, the best first; None is the best one as a plain value.
        labels: one text per class (an Arrow array), or None.
    """

    spec: TensorSpec
    k: Optional[int] = None
    labels: Optional[pa.Array] = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Arrow's own pickling fails in Ray's on Python 3.7 where pyarrow was imported first.
        return _ranked, (
            self.spec,
            self.k,
            None if self.labels is None else self.labels.to_pylist(),
        )

    @property
    def fields(self) -> list[pa.Field]:
        name, labelled = self.spec.name, self.labels is not None
        if self.k is None:
            label = [pa.field(f"{name}_label", pa.string())] if labelled else []
            return [pa.field(f"{name}_argmax", pa.int32()), *label]
        prefix, value = f"{name}_top{self.k}", output_type(self.spec).value_type
        types = {"index": pa.int32(), "value": value, "label": pa.string()}
        names = ("index", "value", "label") if labelled else ("index", "value")
        return [pa.field(f"{prefix}_{name}", pa.list_(types[name], self.k)) for name in names]

    def columns(self, scores: np.ndarray[Any, Any]) -> list[Any]:
        """The values of `fields`: arrays of n rows, texts as Arrow's."""
        if self.k is None:
            best = argmax(scores)
            return [best] if self.labels is None else [best, self.labels.take(pa.array(best))]
        best = top_k(scores, self.k)
        found = [best, np.take_along_axis(scores, best, axis=1)]
        if self.labels is not None:
            texts = self.labels.take(pa.array(best.reshape(-1)))
            found.append(pa.FixedSizeListArray.from_arrays(texts, self.k))
        return found


def _ranked(spec: TensorSpec, k: Optional[int], labels: Optional[list[str]]) -> Ranked:
    return Ranked(spec, k, None if labels is None else pa.array(labels, pa.string()))


@dataclass(frozen=True)
class Outputs:
    """What is written of a model's outputs, or of what a hook makes of them; picklable.

    Attributes:
        whole: outputs written as they are, in this order; then come
        ranked: the best classes of others, or of the same.
        label_digests: output -> sha256 of its labels' file; part of the run's identity.
        postprocess: the hook that gives these outputs; None is the model itself.
        compression: of the Parquet pages, one of `options.COMPRESSIONS`.
    """

    whole: tuple[TensorSpec, ...]
    ranked: tuple[Ranked, ...] = ()
    label_digests: Mapping[str, str] = field(default_factory=dict)
    postprocess: Optional[Postprocess] = None
    compression: str = COMPRESSIONS[0]

    @property
    def fetched(self) -> tuple[str, ...]:
        """The model's outputs that have to be computed, each once."""
        if self.postprocess is not None:
            return self.postprocess.takes
        specs = [*self.whole, *(one.spec for one in self.ranked)]
        return tuple(dict.fromkeys(spec.name for spec in specs))

    @property
    def schema(self) -> pa.Schema:
        whole = [pa.field(spec.name, output_type(spec)) for spec in self.whole]
        return pa.schema([*whole, *(column for one in self.ranked for column in one.fields)])

    @property
    def result_options(self) -> dict[str, Any]:
        """What of the options stands in files and changes what is written."""
        found: dict[str, Any] = {"labels": dict(self.label_digests)} if self.label_digests else {}
        if self.postprocess is not None:
            found["postprocess_sha256"] = self.postprocess.hook.sha256
            found["postprocess_returns"] = [str(spec) for spec in self.postprocess.returns]
        return found

    def columns(self, arrays: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """What is written of n rows, by column: numpy arrays, and Arrow's where they are texts.

        Args:
            arrays: per fetched output, an array of shape (n, *row_shape).

        Raises:
            ShardError: the hook raised, or returned something else than it declares.
        """
        if self.postprocess is not None:
            arrays = self.postprocess.run(arrays)
        found = {spec.name: arrays[spec.name] for spec in self.whole}
        for one in self.ranked:
            names = [column.name for column in one.fields]
            found.update(zip(names, one.columns(arrays[one.spec.name])))
        return found


def choose_outputs(
    signature: Signature,
    options: OutputOptions,
    keep: Sequence[str],
    read: Callable[[str], bytes],
    postprocess: Optional[Postprocess] = None,
) -> Outputs:
    """Hold the user's choice of outputs against the model and the labels.

    Without a choice every output is written, but those of which only the best are wanted.

    Args:
        keep: the kept columns, which share the output's names.
        read: gives the bytes of a labels' file.
        postprocess: the hook whose results are the outputs; None is the model.

    Raises:
        InputError: an unknown output, one that is not one list of numbers a row, more of the best
            than there are classes, labels of another number, or a column's name that comes
            twice; all are listed. Or the labels are no text.
        StorageError: a labels' file cannot be read.
    """
    outputs = postprocess.returns if postprocess else signature.outputs
    giver = str(postprocess.hook) if postprocess else "the model"
    specs = {spec.name: spec for spec in outputs}
    files = {name: read(file) for name, file in options.labels.items()}
    labels = {name: _lines(data, options.labels[name]) for name, data in files.items()}
    problems = [*_untaken(signature, postprocess), *_problems(giver, specs, options, labels)]
    best = [*options.top_k, *options.argmax]
    whole = options.columns or [name for name in specs if name not in best]
    found = Outputs(
        tuple(specs[name] for name in whole if name in specs),
        tuple(
            Ranked(specs[name], k, labels.get(name))
            for name, k in [*options.top_k.items(), *((name, None) for name in options.argmax)]
            if name in specs and not _unranked(specs[name])
        ),
        {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        postprocess,
        options.compression,
    )
    names = found.schema.names
    problems += [f"{n} columns named {name!r}" for name, n in _repeated(names).items()]
    problems += [
        f"kept column {name!r} has the name of an output" for name in keep if name in names
    ]
    if problems:
        raise InputError(
            "the outputs that were asked for cannot be written:\n  "
            + "\n  ".join(problems)
            + f"\n{giver} gives  {'; '.join(map(str, outputs))}"
        )
    return found


def output_type(spec: TensorSpec) -> pa.DataType:
    """The Arrow type of an output column: a value, or one fixed-size list per dimension."""
    # Parquet has no float16; numpy's own names are Arrow's for all others.
    texts = pa.string() if isinstance(spec, TextSpec) else pa.binary()
    names = {"string": texts, "float16": pa.float32()}
    leaf = names.get(spec.dtype) or pa.from_numpy_dtype(spec.numpy_dtype)
    for dim in reversed(spec.row_shape):
        leaf = pa.list_(leaf) if dim is None else pa.list_(leaf, dim)
    return leaf


def _problems(
    giver: str,
    specs: Mapping[str, TensorSpec],
    options: OutputOptions,
    labels: Mapping[str, pa.Array],
) -> list[str]:
    """What is wrong with the choice, whatever the names of its columns."""
    best = dict.fromkeys([*options.top_k, *options.argmax])
    asked = dict.fromkeys([*options.columns, *best, *options.labels])
    lines = [f"{giver} has no output {name!r}" for name in asked if name not in specs]
    for spec in [specs[name] for name in best if name in specs]:
        classes, k = spec.row_shape[0] if spec.row_shape else None, options.top_k.get(spec.name, 1)
        if _unranked(spec):
            lines.append(f"{spec}: {_unranked(spec)}")
        elif classes is not None and k > classes:
            lines.append(f"top_k {spec.name}={k}: the output has {classes} values a row")
        if spec.name in labels and classes not in (None, len(labels[spec.name])):
            lines.append(
                f"labels {options.labels[spec.name]}: expected {classes} lines, one per value of "
                f"{spec.name}; found {len(labels[spec.name])}"
            )
    return lines + [
        f"labels {file}: expected top_k or argmax of {name}, found neither"
        for name, file in options.labels.items()
        if name not in best
    ]


def _untaken(signature: Signature, postprocess: Optional[Postprocess]) -> list[str]:
    known = [spec.name for spec in signature.outputs]
    taken = postprocess.takes if postprocess else ()
    return [
        f"postprocess_outputs: the model has no output {name!r} (it has {', '.join(known)})"
        for name in taken
        if name not in known
    ]


def _unranked(spec: TensorSpec) -> Optional[str]:
    """Why there are no best values in the rows of this output; None when there are."""
    if spec.dtype == "string" or len(spec.row_shape) != 1:
        return "expected one list of numbers a row, to find its best"
    if spec.row_shape[0] is None:
        return "the model leaves open how many values a row has; expected a fixed number"
    return None


def _lines(data: bytes, file: str) -> pa.Array:
    """One label per line; the last line may end like the others. A byte order mark is none.

    Raises:
        InputError: no UTF-8.
    """
    try:
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"labels {file}: expected UTF-8, a label per line: {error}") from error
    return pa.array(lines[:-1] if not lines[-1] else lines, pa.string())


def _repeated(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names) if names.count(name) > 1}
