"""A lowered model -> the same model with a better graph: the steps, and the only order they run in.

Only exact algebra, in the main graph, outside of loops and branches, on floats. What TensorFlow's
own Grappler does in every session as well as this could (merging equal nodes, arithmetic on
constants, fusing a bias with a Relu) is left to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, List, Set, Tuple

from conversion.graphs.graph import Edge, GraphView, check
from conversion.graphs.half import Analysis
from conversion.graphs.host_ops import host_ops
from conversion.lowering import Lowered
from conversion.optimize.batch_norm import FOLD_BATCH_NORM, fold_batch_norm
from conversion.optimize.bias_add import BIAS_ADD
from conversion.optimize.leftovers import IDENTITIES, WAITING
from conversion.optimize.precompute import Folded, precompute
from conversion.surgery import Applied, float16, scrub, sweep
from conversion.weights.names import Dropped, Mapping
from conversion.weights.variables import graph_variables

STEPS = (WAITING, IDENTITIES, FOLD_BATCH_NORM, BIAS_ADD)
PRECOMPUTE = "precompute"


@dataclass(frozen=True)
class Optimised:
    """An optimised model, before its values are computed.

    Attributes:
        lowered: the model; its mapping has no variable any more that nothing reads.
        before: the graph in which `lowered.folded` are computed.
        steps: what was changed, with counts.
    """

    lowered: Lowered
    before: Any
    steps: Tuple[Applied, ...]

    @property
    def worth_it(self) -> bool:
        """Whether more was changed than what costs a session nothing."""
        asked = (IDENTITIES.name, float16.REWRITE.name)
        return any(step.count for step in self.steps if step.rewrite not in asked)

    def sentence(self) -> str:
        """What was done, for a person."""
        words = {
            FOLD_BATCH_NORM.name: "{} batch norms or factors folded into weights",
            BIAS_ADD.name: "{} sums fused",
            PRECOMPUTE: "{} values computed once instead of in every run",
            WAITING.name: "{} control edges deleted",
            IDENTITIES.name: "{} identities removed",
        }
        done = {step.rewrite: step.count for step in self.steps}
        return ", ".join(text.format(done[name]) for name, text in words.items() if done.get(name))


def optimise(lowered: Lowered, precision: str, target: str, exact: bool = False) -> Optimised:
    """Fold in float32, then go over to float16 where it is asked for, then compute ahead.

    Args:
        lowered: in float32.
        precision: "float32" or "float16".
        exact: fold what that precision allows, but stay in float32, to be compared in it.

    Raises:
        ConversionError: a step broke the graph, or a value that was computed is not finite.
    """
    roots = _roots(lowered)
    graph_def, steps = _folded(lowered.graph_def, roots, precision)
    constants = 0
    if precision == "float16" and not exact:  # which looks at the range of constants
        graph_def, constants, applied = _in_half(graph_def, roots)
        steps.append(applied)
    graph_def = _swept(graph_def, roots)
    ahead = precompute(GraphView(graph_def, roots))
    steps.append(Applied(PRECOMPUTE, ahead.count + constants))
    made = _swept(ahead.graph_def, roots)
    check(made, after=PRECOMPUTE)
    optimised = replace(
        lowered,
        graph_def=made,
        mapping=_without_unread(lowered.mapping, made, ahead.folded),
        folded=tuple(_with_read(one, lowered.mapping) for one in ahead.folded),
        applied=lowered.applied + tuple(steps),
        host_ops=host_ops(made, target),
    )
    return Optimised(optimised, graph_def, tuple(steps))


def _roots(lowered: Lowered) -> Tuple[str, ...]:
    """The nodes that must stay: an input may be one that other nodes only wait for."""
    signature = lowered.signature
    tensors = [spec.tensor for spec in signature.outputs]
    tensors += [tensor for spec in signature.inputs for tensor in spec.fed]
    return tuple(Edge.parse(text).node for text in tensors) + tuple(lowered.initialisers)


def _swept(graph_def: Any, roots: Tuple[str, ...]) -> Any:
    """Without the nodes that nothing needs, nor colocation with them."""
    kept, _ = sweep.sweep(GraphView(graph_def, roots))
    return scrub.REWRITE.run(GraphView(kept, roots))[0]


def _folded(graph_def: Any, roots: Tuple[str, ...], precision: str) -> Tuple[Any, List[Applied]]:
    """After the steps in float32; what float16 is safe for is asked of the graph before a fold."""
    steps = []
    for rewrite in STEPS:
        view = GraphView(graph_def, roots)
        if rewrite is FOLD_BATCH_NORM and precision == "float16":
            graph_def, count = fold_batch_norm(view, Analysis(view).chosen)
        else:
            graph_def, count = rewrite.run(view)
        check(graph_def, after=rewrite.name)
        steps.append(Applied(rewrite.name, count))
    return graph_def, steps


def _in_half(graph_def: Any, roots: Tuple[str, ...]) -> Tuple[Any, int, Applied]:
    """In float16; how many values of constants were computed for its sake; what it changed."""
    ahead = precompute(GraphView(graph_def, roots), constants_alone=True)
    swept = _swept(ahead.graph_def, roots)
    made, count = float16.REWRITE.run(GraphView(swept, roots))
    check(made, after=float16.REWRITE.name)
    return made, ahead.count, Applied(float16.REWRITE.name, count)


def _with_read(value: Folded, mapping: Mapping) -> Folded:
    """With the names of what is read of the source's checkpoint."""
    pieces = [p for one in mapping.assignments if one.target in value.sources for p in one.pieces]
    return replace(value, read=tuple(sorted(piece.text for piece in pieces)))


def _without_unread(mapping: Mapping, graph_def: Any, folded: Tuple[Folded, ...]) -> Mapping:
    """Drop the variables that only the folded values are computed of."""
    read = {variable.spec.name for variable in graph_variables(graph_def, {})}
    kept = tuple(one for one in mapping.assignments if one.target in read)
    used = {piece.spec.name for one in kept for piece in one.pieces}
    drops: List[Dropped] = list(mapping.drops)
    seen: Set[str] = set(used)
    for one in mapping.assignments:
        for piece in one.pieces if one.target not in read else ():
            if piece.spec.name not in seen:
                seen.add(piece.spec.name)
                drops.append(Dropped(piece.spec.name, _reason(one.target, folded)))
    return replace(
        mapping, assignments=kept, drops=tuple(sorted(drops, key=lambda drop: drop.name))
    )


def _reason(target: str, folded: Tuple[Folded, ...]) -> str:
    into = [value.target for value in folded if target in value.sources]
    return f"folded into {', '.join(into)}" if into else "not read by the optimised graph"
