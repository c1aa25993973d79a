"""Listed objects -> records of Parquet files: every footer is read, never the data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Callable, NamedTuple, Optional, Sequence

from batchinfer.arrow import pa, pq
from batchinfer.errors import ObjectChangedError, ObjectNotFoundError
from batchinfer.footer import damage_reported, leaves_of, read_footer
from batchinfer.plan import InputFile, RowGroup
from batchinfer.storage import ObjectInfo, Store

FOOTER_THREADS = 16  # footers are small reads: latency, not bandwidth
FILES_AT_ONCE = 64  # of one thread's turn: a future for each file costs a quarter of its footer
ARROW_SCHEMA = b"ARROW:schema"


def read_footers(
    inputs: Sequence[tuple[Store, ObjectInfo]], columns: Sequence[str]
) -> list[InputFile]:
    """Read every footer, several at a time; the data is not touched.

    Args:
        columns: the columns that will be read; their sizes decide how files are cut.

    Returns:
        One record per input; one that cannot be read carries its problem.
    """
    schemas = _Schemas(columns)
    step = max(1, min(FILES_AT_ONCE, len(inputs) // FOOTER_THREADS))

    def read(start: int) -> list[InputFile]:
        return [_input_file(*one, schemas) for one in inputs[start : start + step]]

    with ThreadPoolExecutor(FOOTER_THREADS) as pool:
        return [file for files in pool.map(read, range(0, len(inputs), step)) for file in files]


def check_files(
    files: Sequence[InputFile], problem: Callable[[pa.Schema], Optional[str]]
) -> list[InputFile]:
    """The same files; one that does not fit carries its problem now, with its row groups.

    Args:
        problem: what is wrong with a file's schema, in words, or None; asked once per schema.
    """
    # By identity: equal schemas are one object (`read_footers`), and to hash one takes 12 us.
    schemas = {id(file.schema): file.schema for file in files if not file.problem}
    problems = {known: problem(schema) for known, schema in schemas.items()}
    return [
        replace(file, problem=problems[id(file.schema)] or "")
        if not file.problem and problems[id(file.schema)]
        else file
        for file in files
    ]


class _Known(NamedTuple):
    """What is derived from a footer's schema.

    Attributes:
        parquet, stored: the schema as the footer has it, and as Arrow stored it in the footer.
        arrow: without metadata.
        wanted: numbers of the leaves that will be read.
    """

    parquet: pq.ParquetSchema
    stored: Optional[bytes]
    arrow: pa.Schema
    wanted: Sequence[int]


class _Schemas:
    """Converts the schemas of footers; a hundred thousand files share a schema or two.

    Most files have the schema of the one before: then nothing is converted. Used by several
    threads, each of which leaves here what the next one may or may not meet.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = set(columns)
        self._last: Optional[_Known] = None
        self._shared: dict[pa.Schema, pa.Schema] = {}

    def of(self, footer: pq.FileMetaData) -> _Known:
        """What the footer's schema means.

        Raises:
            pa.ArrowException, OSError, ValueError: it is damaged.
        """
        parquet, stored = footer.schema, (footer.metadata or {}).get(ARROW_SCHEMA)
        last = self._last
        if last is not None and last.stored == stored and last.parquet.equals(parquet):
            return last
        arrow = parquet.to_arrow_schema().remove_metadata()
        shared = self._shared.setdefault(arrow, arrow)
        known = _Known(parquet, stored, shared, leaves_of(footer, self._columns))
        self._last = known
        return known


def _input_file(store: Store, info: ObjectInfo, schemas: _Schemas) -> InputFile:
    url = store.url(info.path)
    try:
        footer = read_footer(store, info)
        with damage_reported():
            schema = schemas.of(footer)
            groups = _row_groups(footer, schema.wanted)
    except (pa.ArrowException, ObjectNotFoundError, ObjectChangedError) as error:
        problem = f"not a readable Parquet file ({info.size} bytes): {_first_line(error)}"
        return InputFile(url, info.size, info.version, (), problem)
    damage = _row_count_problem(footer.num_rows, groups)
    if damage:
        return InputFile(url, info.size, info.version, (), damage)
    return InputFile(url, info.size, info.version, groups, "", schema.arrow)


def _row_groups(footer: pq.FileMetaData, wanted: Sequence[int]) -> tuple[RowGroup, ...]:
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


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
