"""harborctl from Python: the commands as functions. They print nothing, and raise the errors of `harborctl.errors`.

::

    import harborctl

    result = harborctl.load("orders.csv", "shop.orders", mode="upsert", key=["id"], url="postgresql://me@db/shop")
    print(result.inserted, result.updated)
    low = harborctl.query("SELECT * FROM shop.stock WHERE free < :few", {"few": 5})  # a pyarrow.Table
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args, runtime_checkable

from harborctl.errors import HarborctlError, UsageError
from harborctl.model import ConnectionOptions, LoadOptions, LoadResult
from harborctl.options import declared

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from harborctl.counts.result import TableCount
    from harborctl.reports.report import Report

QUERY_SECONDS = 60.0


@runtime_checkable
class ArrowStream(Protocol):
    """What hands out Arrow data: tables and readers of pyarrow, frames of pandas and polars, results of DuckDB.

    Source: https://arrow.apache.org/docs/format/CDataInterface/PyCapsuleInterface.html
    """

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """A capsule with the stream."""


Source = str | os.PathLike[str] | ArrowStream


def load(
    source: Source | Sequence[str | os.PathLike[str]],
    table: str | None = None,
    *,
    url: str | None = None,
    connection: str | None = None,
    **options: Any,
) -> LoadResult:
    """Load files, or Arrow data, into one table, all or nothing.

    Args:
        source: a path or glob, several of them, or Arrow data.
        table: `[schema.]table`; by default the file's stem.
        url: of the database; by default as for the command line.
        connection: the name of a connection in `harborctl.toml`.
        options: those of `harborctl load`, with underscores: `mode="upsert"`, `key=["id"]`, `on_error="reject"`,
            `map={"order_date": "ordered_on"}`, `no_header=True`.

    Raises:
        HarborctlError: the load did not go in. Its attribute `result` has the summary.
        TypeError: there is no such option.
    """
    from harborctl.load.options import load_options
    from harborctl.load.run.loader import LoadFailed, run_load
    from harborctl.load.write.bad_row import Silent

    said = {key: _said(key, value) for key, value in options.items()}
    with _paths(source) as paths, _opened(url, connection) as database:
        try:
            return run_load(database, load_options(sources=paths, table=table, **said), Silent())
        except LoadFailed as failed:
            failed.error.result = failed.result
            raise failed.error from failed.__cause__


def count(
    *tables: str,
    exact: bool = False,
    sample: float | None = None,
    where: str | None = None,
    url: str | None = None,
    connection: str | None = None,
) -> list[TableCount]:
    """How many rows tables have; by default an estimate. Arguments are those of `harborctl count`.

    Raises:
        HarborctlError: there is no such table, or it cannot be counted.
    """
    from harborctl.counts.count import count_tables
    from harborctl.counts.result import CountOptions

    with _opened(url, connection) as database:
        counts = count_tables(database.engine, tables, CountOptions(exact=exact, sample=sample, where=where))
    for error in counts.failed.values():
        raise error
    return counts.tables


def query(
    sql: str,
    parameters: Mapping[str, object] | None = None,
    *,
    timeout: float = QUERY_SECONDS,
    url: str | None = None,
    connection: str | None = None,
) -> pa.Table:
    """The rows of one SELECT as an Arrow table, with types as a Parquet file of `harborctl query` has them.

    Args:
        sql: with `:name` for parameters.
        parameters: their values; see `harborctl query` for how they are read.
        timeout: seconds after which the server ends it; 0 for never.
        url: as for `load`.
        connection: as for `load`.

    Raises:
        HarborctlError: it is no SELECT, or the server refuses it.
    """
    from harborctl.reports.query import typed_query

    given = _given(parameters)
    return _rows(typed_query(sql, given), given, timeout, url, connection)


def report(
    name: str,
    parameters: Mapping[str, object] | None = None,
    *,
    timeout: float = QUERY_SECONDS,
    url: str | None = None,
    connection: str | None = None,
) -> pa.Table:
    """The rows of a report as an Arrow table.

    Args:
        name: of the report, or the path of a `.sql` file.
        parameters: as for `query`.
        timeout: as for `query`.
        url: as for `load`.
        connection: as for `load`.

    Raises:
        HarborctlError: there is no such report, or the server refuses it.
    """
    from harborctl.config import load_config
    from harborctl.reports.find import find_report, report_folders

    found = find_report(name, report_folders(load_config(None).reports))
    return _rows(found, _given(parameters), timeout, url, connection)


def history(
    *,
    table: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    limit: int = 20,
    url: str | None = None,
    connection: str | None = None,
) -> list[dict[str, Any]]:
    """Past loads, newest first, as `harborctl history --json` has them.

    Raises:
        HarborctlError: the database has no ledger.
    """
    from harborctl.load.ledger.history import past_loads

    with _opened(url, connection) as database:
        return past_loads(database.engine, table=table, status=status, since=since, limit=limit)


@contextmanager
def _opened(url: str | None, connection: str | None) -> Iterator[Any]:
    from harborctl.db.engine import open_database

    with open_database(ConnectionOptions(url=url, name=connection)) as database:
        yield database


@contextmanager
def _paths(source: Source | Sequence[str | os.PathLike[str]]) -> Iterator[list[str]]:
    """Where the rows are: Arrow data goes through a temporary file, so that a load can be begun anew."""
    if isinstance(source, str | os.PathLike):
        yield [os.fspath(source)]
    elif isinstance(source, ArrowStream):
        import tempfile

        import pyarrow as pa

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.arrows"
            reader = pa.RecordBatchReader.from_stream(source)
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
            yield [str(path)]
    else:
        yield [os.fspath(each) for each in source]


def _said(key: str, value: Any) -> Any:
    """A value as the command line has it: members of enumerations by name, a collection as a list of texts."""
    option = next((each for each in declared(LoadOptions) if each.key == key), None)
    if option is None or value is None:
        return value
    kinds = [kind for kind in (option.kind, *get_args(option.kind)) if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, StrEnum):
            if value not in {*kind}:
                raise UsageError(f"{key} cannot be {value!r}", hint=f"It is one of {', '.join(kind)}.")
            return kind(value)
    if isinstance(value, dict):
        return [f"{name}={each}" for name, each in value.items()]
    if list[str] in (option.kind, *get_args(option.kind)):
        return [value] if isinstance(value, str) else list(value)
    return value


def _given(parameters: Mapping[str, object] | None) -> list[str]:
    """`-p name=value`; of a list one for each element."""
    given = []
    for name, value in (parameters or {}).items():
        values = value if isinstance(value, list | tuple) else [value]
        given += [f"{name}={_text(each)}" for each in values]
    return given


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _rows(found: Report, given: list[str], timeout: float, url: str | None, connection: str | None) -> pa.Table:
    import tempfile

    import pyarrow.parquet as pq

    from harborctl.reports.moments import local_now
    from harborctl.reports.parquet import write_parquet
    from harborctl.reports.report import bind
    from harborctl.reports.run import RunOptions, run_report

    values = bind(found, given, local_now())
    with _opened(url, connection) as database, tempfile.TemporaryFile() as file:
        with run_report(database.engine, found, values, RunOptions(timeout=timeout, lines=True)) as result:
            write_parquet(result, file)
        file.seek(0)
        table: pa.Table = pq.read_table(file)
        return table


__all__ = ["HarborctlError", "LoadResult", "count", "history", "load", "query", "report"]
