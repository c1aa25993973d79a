"""Reads of other checkpoints while a model is built: harmless, since every variable is replaced.

A model_fn that starts from `init_checkpoint` reads names from it and sets initialisers. The file
is gone, or lies in a bucket that would be asked for minutes. Its names are answered from the
checkpoint that is being converted; its values are not invented.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Tuple

from batchinfer.errors import InputError
from batchinfer.tf1 import tf

UTILS = "tensorflow.python.training.checkpoint_utils:"
CONTRIB = "tensorflow.contrib.framework.python.framework.checkpoint_utils:"
ASSIGN = "tensorflow.contrib.framework.python.ops.variables:"
MANAGEMENT = "tensorflow.python.training.checkpoint_management:"
FILES = "tensorflow.python.lib.io.file_io:"
NAMES_A_CHECKPOINT = re.compile(r"checkpoint|ckpt|warm_start|pretrain", re.IGNORECASE)


def answers(checkpoint: str, remote: Iterable[str] = ()) -> Dict[str, Callable[[Any], Any]]:
    """For `answered`.

    Args:
        checkpoint: prefix of the checkpoint that is being converted.
        remote: paths of checkpoints in buckets, which are said to exist without asking.
    """
    paths = tuple(remote)

    def names(original: Any) -> Any:
        def answer(path: Any) -> Any:
            return original(path if _there(path) else checkpoint)

        return answer

    def reader(original: Any) -> Any:
        def answer(path: Any) -> Any:
            return original(path) if _there(path) else _NamesOnly(original(checkpoint), path)

        return answer

    def value(original: Any) -> Any:
        def answer(path: Any, name: str) -> Any:
            return original(path, name) if _there(path) else _refuse_value(path, name)

        return answer

    def latest(original: Any) -> Any:
        def answer(folder: Any, latest_filename: Any = None) -> Any:
            return checkpoint if _remote(folder) else original(folder, latest_filename)

        return answer

    def said(there: Any) -> Callable[[Any], Any]:
        def around(original: Any) -> Any:
            def answer(path: Any) -> Any:
                return there(path) if _text(path).startswith(paths) and paths else original(path)

            return answer

        return around

    nothing = _gives(None)
    return {
        UTILS + "init_from_checkpoint": nothing,
        CONTRIB + "init_from_checkpoint": nothing,
        "tensorflow.python.training.warm_starting_util:warm_start": nothing,
        ASSIGN + "assign_from_checkpoint": lambda original: lambda *_, **__: (tf.no_op(), {}),
        ASSIGN + "assign_from_checkpoint_fn": _gives(lambda session: None),
        UTILS + "list_variables": names,
        CONTRIB + "list_variables": names,
        UTILS + "load_checkpoint": reader,
        CONTRIB + "load_checkpoint": reader,
        "tensorflow.python.pywrap_tensorflow:NewCheckpointReader": reader,
        UTILS + "load_variable": value,
        CONTRIB + "load_variable": value,
        MANAGEMENT + "latest_checkpoint": latest,
        MANAGEMENT + "checkpoint_exists": said(lambda path: True),
        FILES + "file_exists_v2": said(lambda path: True),
        FILES + "is_directory_v2": said(lambda path: False),
        FILES + "get_matching_files_v2": said(lambda path: [path]),
    }


def remote_checkpoints(settings: Any, key: str = "") -> Tuple[str, ...]:
    """Every path in a bucket that nested settings give under a name like `init_checkpoint`."""
    if isinstance(settings, Mapping):
        found = [
            path for name in settings for path in remote_checkpoints(settings[name], str(name))
        ]
        return tuple(found)
    if isinstance(settings, (list, tuple)):
        return tuple(path for one in settings for path in remote_checkpoints(one, key))
    text = isinstance(settings, str) and NAMES_A_CHECKPOINT.search(key) and _remote(settings)
    return (settings,) if text else ()


class _NamesOnly:
    """Names, shapes and dtypes of one checkpoint in the place of another's; no values."""

    def __init__(self, reader: Any, path: Any) -> None:
        self._reader = reader
        self._path = path

    def get_variable_to_shape_map(self) -> Any:
        return self._reader.get_variable_to_shape_map()

    def get_variable_to_dtype_map(self) -> Any:
        return self._reader.get_variable_to_dtype_map()

    def has_tensor(self, name: str) -> bool:
        return bool(self._reader.has_tensor(name))

    def get_tensor(self, name: str) -> Any:
        return _refuse_value(self._path, name)


def _refuse_value(path: Any, name: str) -> Any:
    raise InputError(
        f"the model reads the value of {name} from checkpoint {_text(path)}, which is not on this "
        "machine; copy it here and name the copy in --params"
    )


def _gives(value: Any) -> Callable[[Any], Any]:
    return lambda original: lambda *args, **kwargs: value


def _text(path: Any) -> str:
    return path.decode() if isinstance(path, bytes) else str(path)


def _remote(path: Any) -> bool:
    return "://" in _text(path)


def _there(path: Any) -> bool:
    text = _text(path)
    if path is None or _remote(text):
        return False
    found: List[str] = glob.glob(glob.escape(text) + "*")
    return bool(found) or os.path.isdir(text)
