"""convert(): a TPU artifact -> a bundle; the table of contents of this package."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Dict, List, Optional

import batchinfer
from batchinfer.bundle import Bundle, write_bundle
from batchinfer.staged import refuse_existing, staged
from batchinfer.tf1 import CONTRIB_OPS, tf
from conversion.code.keras_model import keras_source, maker_of
from conversion.code.keras_weights import is_h5
from conversion.code.model_fn import model_source
from conversion.graphs.graph import every_node
from conversion.graphs.placeholders import with_fixed
from conversion.lowering import Lowered, Request, lower, num_nodes
from conversion.model_files import write_model
from conversion.options import ConvertOptions, ModelCode
from conversion.proof.prove import Proof, prove, read_given, require
from conversion.source import Source, open_source, tags_of
from conversion.weights.names import Rules
from conversion.weights.rules import read_rules
from conversion.weights.training_checkpoint import plan_training, training_folder


def convert(options: ConvertOptions) -> Dict[str, Any]:
    """Convert and prove; the bundle is there whole, or not at all.

    Returns:
        What was done, for the command's JSON line.

    Raises:
        InputError: and its kinds: see `lower`, `prove` and `write_bundle`.
        ParityError: the bundle's predictions are not the reference's.
    """
    with tempfile.TemporaryDirectory(prefix="batchinfer-") as scratch:
        return _convert(options, scratch)


def _convert(options: ConvertOptions, scratch: str) -> Dict[str, Any]:
    refuse_existing(options.out)
    beside = training_folder(options.out)
    if options.keep_optimizer:
        refuse_existing(beside, "training checkpoint")
    rules = read_rules(options.rules)
    given = read_given(options)
    source = find_source(options, scratch)
    request = request_of(options, rules)
    lowered = lower(source, request)
    training = plan_training(lowered.checkpoint, rules) if options.keep_optimizer else None
    proofs: List[Proof] = []

    def fill(folder: str) -> Dict[str, Any]:
        with ThreadPoolExecutor(1) as beside_copying:
            digest = beside_copying.submit(source.digest)
            write_model(folder, source, lowered)
        proof = prove(folder, source, lowered, request, options, given)
        if not options.allow_parity_failure:
            require(proof, options.out)
        proofs.append(proof)
        made = describe(source, proof.lowered, options.precision, options.target)
        made["source"]["digest"] = digest.result()
        return {**made, **proof.entries()}

    if training is None:
        return summary(write_bundle(options.out, {}, fill), proofs[0])
    with staged(beside, "training checkpoint") as folder:
        training.write(folder)
        bundle = write_bundle(options.out, {}, fill)
    return {**summary(bundle, proofs[0]), "training": training.to_json(beside)}


def find_source(options: ConvertOptions, scratch: str) -> Source:
    """What lies at the source, or what its code builds.

    Args:
        scratch: a folder for what has to be written on the way; must outlive the source.

    Raises:
        InputError: see `open_source`, `keras_source`, `model_source` and `with_fixed`.
    """
    found = dataclasses.replace(_found_source(options, scratch), code=options.code)
    return with_fixed(found, options.fixed)


def _found_source(options: ConvertOptions, scratch: str) -> Source:
    code = options.code
    if is_h5(options.source) or (code is not None and code.keras):
        weights = options.checkpoint or options.source
        return keras_source(
            weights, maker_of(code) if code else None, scratch, code.features if code else None
        )
    if code is not None:
        return model_source(code, options.source, options.checkpoint)
    return open_source(options.source, options.checkpoint)


def request_of(options: ConvertOptions, rules: Rules) -> Request:
    return Request(
        options.inputs,
        options.outputs,
        options.signature,
        rules,
        options.precision,
        options.weights,
        options.target,
    )


def describe(source: Source, lowered: Lowered, precision: str, target: str) -> Dict[str, Any]:
    """The manifest, but for what `write_bundle` and the proof add, and the source's digest."""
    assignments = sorted(lowered.mapping.assignments, key=lambda one: one.target)
    return {
        "source": {
            "kind": source.kind,
            "name": source.name,
            "tags": list(tags_of(source)),
            "signature_def": lowered.signature_def,
            "checkpoint": os.path.basename(lowered.checkpoint),
            "code": about_code(source.code),
        },
        "tool": {"batchinfer": batchinfer.__version__, "tensorflow": tf.__version__},
        "unused_inputs": list(lowered.unused_inputs),
        "precision": precision,
        "target": target,
        "variables": {
            **{one.target: one.to_json() for one in assignments},
            **{one.target: one.to_json() for one in lowered.folded},
        },
        "weights": lowered.mapping.weights.to_json(),
        "dropped": {drop.name: drop.reason for drop in lowered.mapping.drops},
        "rewrites": [{"rewrite": one.rewrite, "count": one.count} for one in lowered.applied],
        "contrib_ops": sorted(
            {node.op for _, node in every_node(lowered.graph_def)} & set(CONTRIB_OPS)
        ),
        "host_ops": [vars(one) for one in lowered.host_ops],
        "notes": list(lowered.notes),
        "nodes": {"before": lowered.num_nodes_before, "after": num_nodes(lowered.graph_def)},
    }


def about_code(code: Optional[ModelCode]) -> Optional[Dict[str, str]]:
    """What was called to build the model; without paths, which differ from machine to machine."""
    if code is None:
        return None
    found = {"model_fn": code.model_fn, "build": code.build, "keras": code.keras}
    return {**{name: named for name, named in found.items() if named}, "mode": code.mode}


def summary(bundle: Bundle, proof: Proof) -> Dict[str, Any]:
    """What the command prints: `report` and `warnings` for a person, the rest as JSON."""
    manifest, lowered = bundle.manifest, proof.lowered
    kept = {one.target: one.to_json() for one in lowered.mapping.assignments}
    renamed = sum(name != one["source"] for name, one in kept.items())
    return {
        "bundle": bundle.path,
        "digest": bundle.digest,
        "source": manifest["source"]["kind"],
        "signature_def": lowered.signature_def,
        "nodes": manifest["nodes"],
        "rewrites": _totals(lowered),
        "variables": {
            "kept": len(kept),
            "renamed": renamed,
            "folded": len(lowered.folded),
            "dropped": len(manifest["dropped"]),
        },
        "weights": manifest["weights"],
        "inputs": [str(spec) for spec in lowered.signature.inputs],
        "outputs": [str(spec) for spec in lowered.signature.outputs],
        "batch": manifest["batch"],
        "host_ops": manifest["host_ops"],
        "notes": manifest["notes"],
        "optimised": proof.optimised,
        "parity": manifest["parity"],
        "warnings": list(proof.warnings()),
        "report": proof.text(),
    }


def _totals(lowered: Lowered) -> Dict[str, int]:
    """Places changed per rewrite that changed any."""
    totals: Dict[str, int] = {}
    for one in lowered.applied:
        if one.count:
            totals[one.rewrite] = totals.get(one.rewrite, 0) + one.count
    return totals
