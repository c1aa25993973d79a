"""A folder, a glob, a list of files -> the Parquet files to score."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Iterable, Mapping, Optional, Sequence

from batchinfer.errors import InputError
from batchinfer.storage import ObjectInfo, Retry, Store, open_store
from batchinfer.storage.store import HIDDEN

SUFFIXES = (".parquet", ".parq", ".pq")
WILD = re.compile(r"[*?\[]")


def list_inputs(
    urls: Sequence[str],
    options: Optional[Mapping[str, Any]] = None,
    retry: Optional[Retry] = None,
) -> list[tuple[Store, ObjectInfo]]:
    """Every Parquet file that the URLs name, in the order given, each folder sorted by path.

    A folder is taken whole, however deep; files and folders whose names begin with `_` or `.`
    are left out, as Spark and pyarrow do, and so are files that do not end in .parquet, .parq
    or .pq. A file that is named itself is taken whatever it is called.

    Raises:
        InputError: nothing was found under a URL, or one file was named twice.
    """
    found: list[tuple[Store, ObjectInfo]] = []
    for url in urls:
        store, path = open_store(url, options, retry)
        infos = _expand(store, path)
        if not infos:
            raise InputError(
                f"no Parquet file under {url}: expected a file, a folder with *.parquet below it, "
                "or a glob that matches some"
            )
        found += [(store, info) for info in infos]
    names = [store.url(info.path) for store, info in found]
    if len(set(names)) < len(names):
        twice = sorted(name for name, number in Counter(names).items() if number > 1)
        raise InputError(
            f"{len(twice)} input file(s) are named twice and would be scored twice, such as "
            f"{twice[0]}; name each once"
        )
    return found


def takes(path: str, name: str) -> bool:
    """Whether an input that is given as `path` would take a Parquet file of this name."""
    if name == path or name.startswith(path.rstrip("/") + "/"):
        return True
    return bool(WILD.search(path) and _glob_pattern(path).match(name))


def _expand(store: Store, path: str) -> list[ObjectInfo]:
    info = store.info(path)
    if info is not None:
        return [info]
    infos = _parquet_below(store, path)
    wild = WILD.search(path)
    if infos or not wild:
        return infos
    pattern = _glob_pattern(path)
    folder = path[: wild.start()].rpartition("/")[0]
    if not folder:
        raise InputError(
            f"{store.url(path)}: expected a folder or bucket before the first wildcard; "
            "a whole machine or account is not searched"
        )
    return [info for info in _parquet_below(store, folder) if pattern.match(info.path)]


def _parquet_below(store: Store, folder: str) -> list[ObjectInfo]:
    infos: Iterable[ObjectInfo] = store.list(folder)
    return [
        i for i in infos if i.path.endswith(SUFFIXES) and not HIDDEN.search(i.path[len(folder) :])
    ]


def _glob_pattern(path: str) -> re.Pattern[str]:
    """`*` and `?` stay within a folder, `**` does not; a matched folder gives all below it."""
    tokens = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?|\[!?[^]/]+\])", path)
    pattern = "".join(
        tokens.get(piece) or (_char_class(piece) if number % 2 else re.escape(piece))
        for number, piece in enumerate(pieces)
    )
    try:
        return re.compile(pattern + r"(?:/.*)?\Z", re.DOTALL)
    except re.error as error:
        raise InputError(f"{path}: expected a glob; found {error} in it") from error


def _char_class(piece: str) -> str:
    """`[a-z]`, or `[!a-z]` for all but these; what else means something to `re` is literal."""
    negated = piece[1] in "!^" and len(piece) > 3
    body = re.sub(r"([\\\[&|~^])", r"\\\1", piece[1 + negated : -1])
    return f"[^/{body}]" if negated else f"[{body}]"
