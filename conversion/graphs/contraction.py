"""Equations such as `abc,cd->abd` over labelled tensors -> transposes, reshapes and one product."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any, Dict, Iterable, List, Optional, Sequence, Set, Tuple

from batchinfer.tf1 import tf

ELLIPSIS = "..."
ELLIPSIS_LABELS = "ⅰⅱⅲⅳⅴⅵⅶⅷ"  # for the dimensions that `...` stands for, the last one last


def contraction(equation: str, tensors: Sequence[Any]) -> Optional[Any]:
    """What Einsum computes of one or two tensors, without it.

    Returns:
        None for what is no matrix product: a label twice in one operand, or `...` for
        dimensions of unknown number.
    """
    operands = labelled(equation, tensors)
    if operands is None:
        return None
    terms, output = operands
    terms = [_summed(term, _others(terms, term) | set(output)) for term in terms]
    if len(terms) == 1:
        return _in_order(terms[0], output).tensor
    return product(terms[0], terms[1], output)


@dataclass(frozen=True)
class Term:
    """A tensor and a label per dimension; the first label of an operand is its batch."""

    tensor: Any
    labels: str


def labelled(equation: str, tensors: Sequence[Any]) -> Optional[Tuple[List[Term], str]]:
    """The operands with their labels and the output's labels; None for what stays."""
    inputs, _, output = equation.partition("->")
    parts = inputs.split(",")
    if len(parts) != len(tensors) or len(parts) > 2:
        return None
    terms = []
    for part, tensor in zip(parts, tensors):
        labels = _expanded(part, tensor)
        if labels is None or len(set(labels)) < len(labels):
            return None
        if tensor.shape.ndims is None:
            tensor.set_shape([None] * len(labels))
        if tensor.shape.ndims != len(labels):
            return None
        terms.append(Term(tensor, labels))
    found = [label for label in ELLIPSIS_LABELS if any(label in term.labels for term in terms)]
    output = output.replace(ELLIPSIS, "".join(found))
    return (terms, output) if len(set(output)) == len(output) else None


def _expanded(part: str, tensor: Any) -> Optional[str]:
    """The labels of an operand, `...` written out; None when its rank is not known."""
    if ELLIPSIS not in part:
        return part
    if tensor.shape.ndims is None:
        return None
    number = tensor.shape.ndims - len(part.replace(ELLIPSIS, ""))
    if not 0 <= number <= len(ELLIPSIS_LABELS):
        return None
    return part.replace(ELLIPSIS, ELLIPSIS_LABELS[len(ELLIPSIS_LABELS) - number :])


def _others(terms: List[Term], term: Term) -> Set[str]:
    return {label for other in terms if other is not term for label in other.labels}


def _summed(term: Term, needed: Set[str]) -> Term:
    """Sum over the labels that nothing else has."""
    axes = [axis for axis, label in enumerate(term.labels) if label not in needed]
    if not axes:
        return term
    kept = "".join(label for label in term.labels if label in needed)
    return Term(tf.reduce_sum(term.tensor, axes), kept)


def _in_order(term: Term, labels: str) -> Term:
    if term.labels == labels:
        return term
    return Term(tf.transpose(term.tensor, [term.labels.index(one) for one in labels]), labels)


@dataclass(frozen=True)
class _Plan:
    """How a product is laid out: left (batch, m, k), right (batch, k, n), either one transposed.

    Attributes:
        batch, m, k, n: the labels of each group, in order.
        swap: the second operand is on the left.
    """

    batch: str
    m: str
    k: str
    n: str
    swap: bool

    def left(self) -> Tuple[str, str]:
        """The labels as the left side is read, and as it is read transposed."""
        return self.batch + self.m + self.k, self.batch + self.k + self.m

    def right(self) -> Tuple[str, str]:
        return self.batch + self.k + self.n, self.batch + self.n + self.k

    def cost(self, a: Term, b: Term, output: str) -> int:
        """The elements to move, an unknown size counted as 64."""
        left, right = (b, a) if self.swap else (a, b)
        sizes = _sizes(a, b)
        moved = 0 if left.labels in self.left() else _volume(left.labels, sizes)
        moved += 0 if right.labels in self.right() else _volume(right.labels, sizes)
        in_order = self.batch + self.m + self.n == output
        return moved + (0 if in_order else _volume(output, sizes))


def product(a: Term, b: Term, output: str) -> Any:
    """The contraction of two terms, with as little transposed as any layout allows."""
    plan = min(_plans(a, b, output), key=lambda one: one.cost(a, b, output))
    left, right = (b, a) if plan.swap else (a, b)
    x, transpose_x = _laid_out(left, plan.left(), (plan.batch, plan.m, plan.k))
    y, transpose_y = _laid_out(right, plan.right(), (plan.batch, plan.k, plan.n))
    found = _matrix_product(x, y, transpose_x, transpose_y)
    flat = (*plan.batch, plan.m, plan.n)
    sources = {label: term for term in (b, a) for label in term.labels}
    made = _reshaped(found, flat, tuple(plan.batch + plan.m + plan.n), sources)
    return _in_order(Term(made, plan.batch + plan.m + plan.n), output).tensor


def _plans(a: Term, b: Term, output: str) -> Iterable[_Plan]:
    """Every order of each group that one of the tensors already has."""
    shared = set(a.labels) & set(b.labels)
    batch = _orders(shared & set(output), output, a.labels, b.labels)
    k = _orders(shared - set(output), a.labels, b.labels)
    m = _orders(set(a.labels) - shared, a.labels, output)
    n = _orders(set(b.labels) - shared, b.labels, output)
    for groups in itertools.product(batch, m, k, n):
        yield _Plan(*groups, swap=False)
        yield _Plan(groups[0], groups[3], groups[2], groups[1], swap=True)


def _orders(labels: Set[str], *tensors: str) -> List[str]:
    ordered = ["".join(label for label in tensor if label in labels) for tensor in tensors]
    return list(dict.fromkeys(ordered))


def _laid_out(term: Term, readings: Tuple[str, str], groups: Tuple[str, str, str]) -> Any:
    """The tensor with its batch dimensions and two more, and whether these are transposed."""
    transposed = term.labels == readings[1] != readings[0]
    made = term if transposed else _in_order(term, readings[0])
    batch, first, second = groups
    flat = (*batch, second, first) if transposed else (*batch, first, second)
    sources = dict.fromkeys(made.labels, made)
    return _reshaped(made.tensor, tuple(made.labels), flat, sources), transposed


def _matrix_product(x: Any, y: Any, transpose_x: bool, transpose_y: bool) -> Any:
    if x.shape.ndims == 2:
        return tf.matmul(x, y, transpose_a=transpose_x, transpose_b=transpose_y)
    return tf.raw_ops.BatchMatMulV2(x=x, y=y, adj_x=transpose_x, adj_y=transpose_y)


def _reshaped(
    tensor: Any, old: Tuple[str, ...], new: Tuple[str, ...], sources: Dict[str, Term]
) -> Any:
    """Join or split dimensions; both sides name the labels that each dimension holds.

    The dimension with an unknown size, else the first, is left to be inferred: a graph that was
    built for one batch size then runs with others.
    """
    if old == new:
        return tensor
    known = {label: _size(sources[label], label) for group in new for label in group}
    unknown = [index for index, group in enumerate(new) if any(known[one] is None for one in group)]
    inferred = unknown[0] if unknown else next((i for i, group in enumerate(new) if group), None)
    shape: List[Any] = []
    for index, group in enumerate(new):
        sizes = [known[one] if known[one] is not None else _in_graph(sources, one) for one in group]
        shape.append(-1 if index == inferred else reduce(mul, sizes, 1))
    return tf.reshape(tensor, shape)


def _size(term: Term, label: str) -> Optional[int]:
    size = term.tensor.shape.as_list()[term.labels.index(label)]
    return None if size is None else int(size)


def _in_graph(sources: Dict[str, Term], label: str) -> Any:
    return tf.shape(sources[label].tensor)[sources[label].labels.index(label)]


def _sizes(*terms: Term) -> Dict[str, int]:
    return {label: _size(term, label) or 64 for term in terms for label in term.labels}


def _volume(labels: str, sizes: Dict[str, int]) -> int:
    return reduce(mul, (sizes[label] for label in labels), 1)
