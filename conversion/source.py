"""A path -> what lies there: a SavedModel, a MetaGraph or a checkpoint. Read only."""

from __future__ import annotations

import glob
import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Tuple

from google.protobuf.message import DecodeError

from batchinfer.errors import InputError
from batchinfer.tf1 import tf
from conversion.options import ModelCode
from conversion.tf_internals import SavedModel
from conversion.weights.checkpoint import checkpoint_files, find_checkpoint
from conversion.weights.object_checkpoint import with_object_names

SERVE, TPU = tf.saved_model.SERVING, "tpu"
READ_BYTES = 1 << 20

KINDS = {
    "saved_model": "SavedModel with a {serve} graph",
    "tpu_saved_model": "TPU SavedModel {serve, tpu}",
    "meta_graph": "MetaGraph",
    "checkpoint": "checkpoint alone",
    "model_fn": "model_fn with its checkpoint",
    "build": "function that builds the model, with its checkpoint",
    "keras": "Keras model with its weights",
}


@dataclass(frozen=True)
class Source:
    """An artifact as it was found; nothing of it is changed.

    Attributes:
        kind: one of `KINDS`.
        path: as the user gave it.
        meta_graph: the MetaGraphDef that is converted; None for a checkpoint alone.
        checkpoint: prefix of the checkpoint that goes with it; None when there is none.
        graph_file: the file that holds this MetaGraphDef; None when code built it, or `--fix`
            changed it.
        keys: checkpoint name by variable name, where something else than the graph's own saver
            says it, such as the object graph of a Keras checkpoint.
        left_out: reason by checkpoint name for entries that are known to be no part of the model.
        notes: what building the model from code left out or changed, a sentence each.
        code: what built the model; None where a graph was found.
    """

    kind: str
    path: str
    meta_graph: Any
    checkpoint: Optional[str]
    graph_file: Optional[str]
    keys: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Tuple[str, ...] = ()
    code: Optional[ModelCode] = None

    @property
    def name(self) -> str:
        return os.path.basename(os.path.abspath(self.path))

    @property
    def assets_folder(self) -> str:
        return os.path.join(self.path, tf.saved_model.ASSETS_DIRECTORY)

    def digest(self) -> str:
        """sha256 over the graph (its file, or what code built) and the checkpoint's files."""
        digest = hashlib.sha256()
        if self.meta_graph is not None and not self.graph_file:
            digest.update(self.meta_graph.SerializeToString(deterministic=True))
        files = [self.graph_file] if self.graph_file else []
        files += checkpoint_files(self.checkpoint) if self.checkpoint else []
        for name in files:
            with open(name, "rb") as file:
                while True:
                    block = file.read(READ_BYTES)
                    if not block:
                        break
                    digest.update(block)
        return digest.hexdigest()


def open_source(path: str, checkpoint: Optional[str] = None) -> Source:
    """Find out what lies at a path, and the checkpoint that goes with it.

    Args:
        checkpoint: prefix or folder; None takes what the artifact has, or lies beside it.

    Raises:
        InputError: nothing is there, it is not an artifact, or the checkpoint is not found.
    """
    return with_object_names(_look(path, checkpoint))


def _look(path: str, checkpoint: Optional[str]) -> Source:
    if not os.path.exists(path) and not find_checkpoint(path):
        raise InputError(f"{path} does not exist; expected {_EXPECTED}")
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "saved_model.pb")):
            return _open_saved_model(path, checkpoint)
        return _open_folder(path)
    if path.endswith(".meta"):
        found = _checkpoint_of_meta_graph(path, checkpoint)
        return Source("meta_graph", path, _parsed(path, tf.MetaGraphDef()), found, path)
    if find_checkpoint(path):
        return Source("checkpoint", path, None, find_checkpoint(path), None)
    raise InputError(f"{path} is not an artifact: expected {_EXPECTED}")


_EXPECTED = (
    "a SavedModel folder (with saved_model.pb), a MetaGraph file (.meta), a Keras model (.h5), "
    "or a checkpoint prefix"
)


def named_checkpoint(path: str) -> str:
    """The prefix that `--checkpoint` means.

    Raises:
        InputError: there is no checkpoint.
    """
    found = find_checkpoint(path)
    if found is None:
        raise InputError(
            f"no checkpoint at {path}: expected a prefix such as model.ckpt-1000 (with "
            "model.ckpt-1000.index beside its data files), or a folder that holds one"
        )
    return found


def _open_saved_model(path: str, checkpoint: Optional[str]) -> Source:
    """Its graph for serving: one without the tag `tpu` first, the fewest other tags first."""
    name = os.path.join(path, "saved_model.pb")
    model = _parsed(name, SavedModel())
    tags = [frozenset(meta_graph.meta_info_def.tags) for meta_graph in model.meta_graphs]
    serving = sorted((found for found in tags if SERVE in found), key=lambda f: (TPU in f, len(f)))
    if serving:
        meta_graph = model.meta_graphs[tags.index(serving[0])]
        inside = os.path.join(path, "variables", "variables")
        found = named_checkpoint(checkpoint) if checkpoint else find_checkpoint(inside)
        kind = "tpu_saved_model" if TPU in serving[0] else "saved_model"
        return Source(kind, path, meta_graph, found, name)
    listed = "; ".join(", ".join(sorted(found)) or "no tags" for found in tags) or "no graph at all"
    raise InputError(f"{name}: expected a graph tagged `serve`; found {listed}")


def _checkpoint_of_meta_graph(path: str, checkpoint: Optional[str]) -> Optional[str]:
    """What was asked for; else the .meta's own; else the newest beside it."""
    if checkpoint:
        return named_checkpoint(checkpoint)
    return find_checkpoint(path) or find_checkpoint(os.path.dirname(os.path.abspath(path)))


def _open_folder(path: str) -> Source:
    """A folder that is no SavedModel: its checkpoint, unless artifacts lie in it."""
    inside = [os.path.dirname(name) for name in _found(path, "*", "saved_model.pb")]
    inside += _found(path, "*.meta")
    checkpoint = find_checkpoint(path)
    if inside:
        listed = "\n  ".join(inside)
        with_code = (
            "\nOr, with the code of the model, take the folder's newest checkpoint:\n  "
            f"python jobs/convert.py {path} --model-fn PACKAGE.MODULE:model_fn "
            "--params params.yaml --features features.yaml --out BUNDLE"
        )
        raise InputError(
            f"{path} holds artifacts but is none; name one of them:\n  {listed}"
            + (with_code if checkpoint else "")
        )
    if checkpoint:
        return Source("checkpoint", path, None, checkpoint, None)
    raise InputError(f"folder {path} holds no artifact: expected {_EXPECTED}")


def _found(*parts: str) -> List[str]:
    return sorted(glob.glob(os.path.join(*parts)))


def _parsed(name: str, message: Any) -> Any:
    """Read a protobuf message from a file."""
    try:
        with open(name, "rb") as file:
            message.ParseFromString(file.read())
    except (OSError, DecodeError) as error:
        kind = type(message).__name__
        raise InputError(f"cannot read {name}: expected a binary {kind}: {error}") from error
    return message


def tags_of(source: Source) -> Tuple[str, ...]:
    return tuple(sorted(source.meta_graph.meta_info_def.tags)) if source.meta_graph else ()
