"""A folder, a glob, a list of files -> the Parquet files to score, with their footers read."""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, Callable, Iterable, Mapping, Optional, Sequence

from batchinfer.arrow import pa, pq
from batchinfer.errors import InputError, ObjectChangedError, ObjectNotFoundError
from batchinfer.footer import damage_reported, leaves_of, read_footer
from batchinfer.plan import InputFile, RowGroup
from batchinfer.storage import ObjectInfo, Retry, Store, open_store

SUFFIXES = (".parquet", ".parq", ".pq")
FOOTER_THREADS = 16  # footers are small reads: latency, not bandwidth
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
    times = Counter(store.url(info.path) for store, info in found)
    twice = sorted(name for name, number in times.items() if number > 1)
    if twice:
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


def read_footers(
    inputs: Sequence[tuple[Store, ObjectInfo]], columns: Sequence[str]
) -> list[InputFile]:
    """Read every footer, several at a time; the data is not touched.

    Args:
        columns: the columns that will be read; their sizes decide how files are cut.

    Returns:
        One record per input; one that cannot be read carries its problem.
    """
    known: dict[pa.Schema, pa.Schema] = {}  # a hundred thousand files share a schema or two
    wanted = set(columns)

    def read(one: tuple[Store, ObjectInfo]) -> InputFile:
        file = _input_file(one[0], one[1], wanted)
        return replace(file, schema=known.setdefault(file.schema, file.schema))

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return list(pool.map(read, inputs))


def check_files(
    files: Sequence[InputFile], problem: Callable[[pa.Schema], Optional[str]]
) -> list[InputFile]:
    """The same files; one that does not fit carries its problem now, with its row groups.

    Args:
        problem: what is wrong with a file's schema, in words, or None.
    """
    known = lru_cache(maxsize=None)(problem)
    return [
        file if file.problem else replace(file, problem=known(file.schema) or "") for file in files
    ]


def _input_file(store: Store, info: ObjectInfo, columns: set[str]) -> InputFile:
    url = store.url(info.path)
    try:
        footer = read_footer(store, info)
        with damage_reported():
            schema, groups = footer.schema.to_arrow_schema(), _row_groups(footer, columns)
    except (pa.ArrowException, ObjectNotFoundError, ObjectChangedError) as error:
        problem = f"not a readable Parquet file ({info.size} bytes): {_first_line(error)}"
        return InputFile(url, info.size, info.version, (), problem)
    damage = _row_count_problem(footer.num_rows, groups)
    if damage:
        return InputFile(url, info.size, info.version, (), damage)
    return InputFile(url, info.size, info.version, groups, "", schema.remove_metadata())


def _row_groups(footer: pq.FileMetaData, columns: set[str]) -> tuple[RowGroup, ...]:
    wanted = leaves_of(footer, columns)
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    return tuple(
        RowGroup(g.num_rows, sum(g.column(leaf).total_uncompressed_size for leaf in wanted))
        for g in groups
    )


def _row_count_problem(num_rows: int, groups: Sequence[RowGroup]) -> Optional[str]:
    """A damaged count loses rows in silence: pyarrow reads as many as the row group tells."""
    counts = [group.num_rows for group in groups]
    if sum(counts) == num_rows and min(counts, default=0) >= 0:
        return None
    return f"a damaged footer: {num_rows} rows in all, {sum(counts)} in its row groups"


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
    return [i for i in infos if i.path.endswith(SUFFIXES) and _visible(i.path[len(folder) :])]


def _visible(relative: str) -> bool:
    parts = [part for part in relative.split("/") if part]
    # "year=2024" is a hive folder; "_temporary" and ".hidden" are nobody's data.
    return not any(part.startswith((".", "_")) for part in parts)


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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
