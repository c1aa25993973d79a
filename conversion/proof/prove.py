"""A written bundle -> its proof: the batch probed, the reference found, both sides compared."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Dict, List, Mapping, Optional, Tuple

from conversion.graphs.tensors import choose_tensors
from conversion.lowering import Lowered, Request
from conversion.model_files import VARIABLES, score_folder, write_graph
from conversion.options import NO_REFERENCE, ConvertOptions
from conversion.proof import float32_twin, golden, parity
from conversion.proof.arithmetic import arithmetic_of
from conversion.proof.batch_probe import Batch
from conversion.proof.optimised import Plain, Reports, improve
from conversion.proof.reference import NoReference, Reference, from_code, from_file, from_source
from conversion.proof.reference_file import Arrays, check_inputs, read_reference
from conversion.proof.settle_batch import Settled, flat_outputs, opened_like, settle_batch
from conversion.proof.synthetic import Draw
from conversion.proof.tolerance import tolerance_for
from conversion.source import Source


@dataclass(frozen=True)
class Proof:
    """What a bundle was found to compute.

    Attributes:
        lowered: what is in the bundle; its batch may have been opened.
        batch: in which batches its rows may be scored.
        report: the comparison with the reference; None when there was none.
        against_float32: a float16 bundle's comparison with the float32 bundle of its source.
        against_bfloat16: the comparison with the source as it was traced, in bfloat16, beside a
            report on the source in float32. It shows what rounding did in training and on the
            TPU; it decides nothing, because two machines differ by as much in bfloat16.
        unproven: why there is no report; "" when there is one.
        optimised: what was done to the graph, or why nothing was; "" when nothing was asked for.
    """

    lowered: Lowered
    batch: Batch
    report: Optional[parity.ParityReport] = None
    against_float32: Optional[parity.ParityReport] = None
    against_bfloat16: Optional[parity.ParityReport] = None
    unproven: str = ""
    optimised: str = ""

    def entries(self) -> Dict[str, Any]:
        """For the manifest."""
        found = {
            "signature": self.lowered.signature.to_json(),
            "batch": self.batch.to_json(),
            "parity": self.report.to_json() if self.report else None,
            "unproven": self.unproven,
            "optimised": self.optimised,
        }
        if self.against_float32:
            found["parity_float32"] = self.against_float32.to_json()
        if self.against_bfloat16:
            found["parity_bfloat16"] = self.against_bfloat16.to_json()
        return found

    def warnings(self) -> Tuple[str, ...]:
        found = list(self.batch.warnings())
        for report in (self.report, self.against_float32):
            found += report.warnings if report else ()
        rounded = self.against_bfloat16
        if rounded and not rounded.passed:
            found.append(
                "rounding to bfloat16, as the source was traced, moves its outputs by more than "
                f"{rounded.tolerance}: expect this bundle to differ from the TPU's predictions by "
                "as much"
            )
        if self.unproven:
            found.append(
                f"nothing proves this bundle: {self.unproven}; score.py will refuse it unless told "
                "otherwise"
            )
        return tuple(found)

    def text(self) -> str:
        """The reports as a person reads them; "" when there is none."""
        reports = (self.report, self.against_float32, self.against_bfloat16)
        return "\n".join(one.text() for one in reports if one)


def read_given(options: ConvertOptions) -> Optional[Arrays]:
    """The user's arrays; None when the source shall compute, or nothing.

    Raises:
        InputError: see `read_reference`.
    """
    asked = options.reference
    return read_reference(asked) if asked and asked != NO_REFERENCE else None


def prove(
    folder: str,
    source: Source,
    lowered: Lowered,
    request: Request,
    options: ConvertOptions,
    given: Optional[Arrays],
) -> Proof:
    """Probe and compare the model in `folder`; its graph is written again if its batch opens.

    Raises:
        InputError: inputs that do not fit, or an output without one row per input row.
    """
    if options.reference == NO_REFERENCE:
        why = "nothing was run, as --reference none asks"
        batch = Batch(lowered.signature.fixed_batch_rows, why=why)
        return Proof(lowered, batch, unproven=why, optimised=_left(options, why))
    draw = _users(given, lowered) if given else None
    exact: Mapping[str, Any] = {}
    if request.precision == "float32":
        settled = twin = settle_batch(folder, lowered, draw)
    else:
        twin, exact = float32_twin.settle(folder, source, request, draw)
        settled = replace(twin, lowered=opened_like(lowered, twin.opened))
    if settled.opened:
        write_graph(folder, source, settled.lowered)
    sides = _Sides(folder, source, lowered, request, options, given, settled)
    try:
        reference = sides.reference()
    except NoReference as error:
        left = _left(options, str(error))
        return Proof(settled.lowered, settled.batch, unproven=str(error), optimised=left)
    found = score_folder(folder, settled.lowered.signature, reference.inputs)
    golden.write_golden(folder, reference.inputs, reference.outputs)
    traced = sides.as_traced(reference)

    def compare(outputs: Mapping[str, Any]) -> Reports:
        return Reports(
            sides.report(outputs, reference),
            float32_twin.report(outputs, exact, options.tolerance) if exact else None,
            sides.report(outputs, traced) if traced else None,
        )

    reports = compare(found)
    if not options.optimize:
        return _proof(settled.lowered, settled.batch, reports, "")
    inputs, in_float32 = reference.inputs, exact or found
    plain = Plain(folder, source, twin.lowered, request, inputs, found, in_float32, reports)
    outcome = improve(plain, compare)
    best = outcome.lowered or settled.lowered
    return _proof(best, settled.batch, outcome.reports, outcome.says)


def _proof(lowered: Lowered, batch: Batch, reports: Reports, optimised: str) -> Proof:
    return Proof(
        lowered,
        batch,
        reports.report,
        reports.against_float32,
        reports.against_bfloat16,
        optimised=optimised,
    )


def _left(options: ConvertOptions, why: str) -> str:
    """What is not compared is not changed."""
    return f"not optimised: {why}" if options.optimize else ""


def _users(given: Arrays, lowered: Lowered) -> Draw:
    inputs = check_inputs(given, lowered.signature)
    rows = len(next(iter(inputs.values())))
    return Draw(inputs, {"kind": "user", "rows": rows})


@dataclass(frozen=True)
class _Sides:
    """Where the reference of one conversion comes from, and how it is compared.

    Attributes:
        lowered: as it was before its batch was opened.
    """

    folder: str
    source: Source
    lowered: Lowered
    request: Request
    options: ConvertOptions
    given: Optional[Arrays]
    settled: Settled

    @property
    def computed_in(self) -> str:
        request = self.request
        chosen = choose_tensors(self.source, request.inputs, request.outputs, request.signature)
        return arithmetic_of(self.source.meta_graph.graph_def, chosen.outputs.values())

    def reference(self) -> Reference:
        """The user's outputs, else the source's own for the inputs that were settled on.

        Raises:
            NoReference: there are no inputs, or the source does not run.
        """
        draw = self.settled.draw
        if draw is None:
            raise NoReference(self.settled.batch.why.replace("not probed: ", ""))
        if self.given is not None and self.given.outputs:
            path = os.path.basename(str(self.options.reference))
            return from_file(self.given, draw, path, self.computed_in)
        widen = self.computed_in == "bfloat16"
        code, options = self.source.code, self.options
        own_names = options.rules is None and options.weights is None
        if code and not code.keras and own_names and not widen:
            try:
                return from_code(code, self.lowered.checkpoint, draw)
            except NoReference as error:
                found = self._from_source(draw, widen)
                return replace(found, how=f"{found.how}; built plainly it does not run: {error}")
        return self._from_source(draw, widen)

    def _from_source(self, draw: Draw, widen: bool) -> Reference:
        plain = self.options.checkpoint is None and self.options.weights is None
        converted = os.path.join(self.folder, VARIABLES)
        return from_source(self.source, self.lowered, self.request, draw, converted, plain, widen)

    def report(self, found: Mapping[str, Any], reference: Reference) -> parity.ParityReport:
        """The comparison, with the tolerance that the arithmetics allow."""
        coarsest, tolerance = tolerance_for([reference.arithmetic, self.request.precision])
        why = f"default for {coarsest}, the coarser arithmetic of reference and bundle"
        if self.options.tolerance is not None:
            tolerance, why = self.options.tolerance, "--atol and --rtol"
        report = parity.compare(found, reference.outputs, tolerance)
        return replace(
            report,
            about={"reference": reference.about(), "tolerance_why": why},
            title=f"compared with {reference.sentence()}",
            warnings=_flat(reference) + self._blind_spots(reference),
        )

    def _blind_spots(self, reference: Reference) -> Tuple[str, ...]:
        """What this comparison cannot show."""
        found = []
        if self.options.rules and reference.kind != "user file":
            found.append(
                "the rules file names the variables on both sides of the comparison; that a rule "
                "is right shows only against predictions from elsewhere (--reference FILE.npz)"
            )
        if self.request.precision == "float16" and reference.drawn["kind"] == "synthetic":
            found.append(
                "float16 was proven on made-up inputs; values beyond 65504 inside the model show "
                "only with real ones (--reference FILE.npz with inputs/ is enough)"
            )
        return tuple(found)

    def as_traced(self, reference: Reference) -> Optional[Reference]:
        """In bfloat16 what was computed in float32; None where that says nothing new."""
        draw = self.settled.draw
        if reference.kind == "user file" or self.computed_in == "float32" or draw is None:
            return None
        try:
            return self._from_source(draw, widen=False)
        except NoReference:  # a kernel is missing; the report in float32 stands by itself
            return None


def _flat(reference: Reference) -> Tuple[str, ...]:
    """Outputs whose agreement on these inputs says little."""
    flat: List[str] = flat_outputs(reference.outputs)
    if not flat:
        return ()
    return (
        f"output {', '.join(flat)} says the same of every row, or is not finite, for these inputs "
        f"({reference.drawn['kind']}), so its agreement proves little; give real inputs with "
        "--reference FILE.npz",
    )


def require(proof: Proof, bundle: str) -> None:
    """Raise unless every report passed.

    Raises:
        ParityError: with the table.
    """
    for report in (proof.report, proof.against_float32):
        if report is not None:
            parity.require(report, bundle)
