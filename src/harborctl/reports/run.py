"""Runs a report: bound values, a cursor on the server, rows as the server writes them.

All in a read-only transaction that is never committed. Memory does not grow with the result. What the server says
against the statement is placed in the report's file.
"""

from __future__ import annotations

import json
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from sqlalchemy import bindparam, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from harborctl.db.catalog import find_target
from harborctl.db.engine import milliseconds
from harborctl.db.export import TypedValue, copied
from harborctl.db.failures import translate
from harborctl.db.relations import quoted
from harborctl.db.search_path import take_users_path
from harborctl.errors import HarborctlError, Location, TargetError, UsageError
from harborctl.nearest import did_you_mean
from harborctl.plain_text import visible
from harborctl.reports.lexer import line_and_column
from harborctl.reports.result import Column, Kind, Result
from harborctl.sqlstate import QUERY_CANCELED, READ_ONLY_SQL_TRANSACTION, UNDEFINED_COLUMN, UNDEFINED_TABLE

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from sqlalchemy import Connection, CursorResult, Engine, TextClause

    from harborctl.db.catalog import Target
    from harborctl.reports.lexer import Piece
    from harborctl.reports.report import Report
    from harborctl.reports.result import Batches
    from harborctl.reports.values import Value

# Rows fetched at once. A million rows of 3 columns to CSV: 500 rows 5.0 s, 2 000 rows 4.0 s, 10 000 rows 5.3 s and
# 10 MB more.
BATCH_ROWS = 2000

# The types whose text JSON and a table's alignment take for a number; `money` is written with a currency.
_NUMBERS = frozenset({"int2", "int4", "int8", "float4", "float8", "numeric", "oid"})
_KINDS = {
    **dict.fromkeys(_NUMBERS, Kind.NUMBER),
    "bool": Kind.BOOLEAN,
    "json": Kind.JSON,
    "jsonb": Kind.JSON,
    "timestamp": Kind.TIMESTAMP,
    "timestamptz": Kind.TIMESTAMP,
}

# Only for this transaction. A cursor is planned for its first rows unless told that all are wanted, and how dates and
# numbers are written shall not depend on who asks.
_SETTINGS = text("""
    SELECT set_config('statement_timeout', :timeout, true), set_config('cursor_tuple_fraction', :fraction, true),
           set_config('datestyle', 'ISO', true), set_config('intervalstyle', 'postgres', true),
           set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true)
""")

# A list of a domain's values is a list of its base type's.
_TYPES = text("""
    SELECT type.oid, pg_catalog.format_type(type.oid, NULL) AS name,
           type.typcategory = 'A' AND element.oid IS NOT NULL AS is_list,
           coalesce(base.typname, type.typname) AS base, coalesce(element.typdelim, ',') AS delimiter
    FROM pg_catalog.pg_type AS type
    LEFT JOIN pg_catalog.pg_type AS element ON element.oid = type.typelem AND element.typarray = type.oid
    LEFT JOIN pg_catalog.pg_type AS base ON base.oid = coalesce(nullif(element.typbasetype, 0), element.oid)
    WHERE type.oid = ANY(CAST(:oids AS oid[]))
""")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a report.

    Attributes:
        timeout: seconds after which the server ends a statement; 0 for never. Each batch is a statement of its own,
            but all lines together are one.
        limit: rows after which to stop; None for all.
        lines: whether the rows are wanted as lines, if that is possible.
    """

    timeout: float = 60.0
    limit: int | None = None
    lines: bool = False


@contextmanager
def run_report(
    engine: Engine, report: Report, values: Mapping[str, Value], options: RunOptions | None = None
) -> Iterator[Result]:
    """The result of `report`, which can be read inside this block.

    Raises:
        StatementFailed: the server refuses the report, as it does if the report writes.
        TargetError: a parameter names a table or a column that is not there.
        ConnectionFailed: there is no connection, or it was lost.
    """
    options = options or RunOptions()
    with _begun(engine, report, options) as connection, rows_of(connection, report, values, options) as result:
        yield result


@contextmanager
def rows_of(
    connection: Connection, report: Report, values: Mapping[str, Value], options: RunOptions
) -> Iterator[Result]:
    """The same in a transaction that has begun, with the settings of `settle`."""
    by_lines = options.lines and options.limit is None
    bound = _bound(connection, report, values)
    # A cursor comes first in any case: it costs one planning, and says what the columns are and what is wrong.
    # SQLAlchemy asks it for a row at once, which may be all the work there is: of lines it is to give none.
    with _opened(connection, bound, *(_ROWLESS if by_lines else ("", ""))) as cursor:
        columns = _columns(connection, cursor)
        if not by_lines:
            yield Result(columns, _limited(cursor, options.limit))
    if by_lines:
        with closing(_lines(connection, bound)) as lines:
            yield Result(columns, iter(()), lambda: lines)


def explain_report(
    engine: Engine, report: Report, values: Mapping[str, Value], options: RunOptions, *, as_json: bool
) -> str:
    """The plan of `report` and the time that each part of it took. The report runs, and its rows are thrown away.

    Raises:
        StatementFailed: the server refuses the report.
    """
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT {'JSON' if as_json else 'TEXT'}) "
    with _begun(engine, report, options) as connection:
        bound = _bound(connection, report, values)
        try:
            found = connection.execute(bound.statement(explain), bound.values).scalars().all()
        except DBAPIError as error:
            raise _placed(error, bound, explain) from error
    if as_json:
        [document] = found
        return document if isinstance(document, str) else json.dumps(document, ensure_ascii=False, indent=2)
    return "\n".join(found)


@contextmanager
def _begun(engine: Engine, report: Report, options: RunOptions) -> Iterator[Connection]:
    """A read-only transaction, with the session as reports want it."""
    try:
        with engine.connect() as connection:
            connection.execution_options(postgresql_readonly=True)
            settle(connection, options)
            yield connection
    except DBAPIError as error:
        raise _explained(translate(error), report) from error


def settle(connection: Connection, options: RunOptions) -> None:
    """Make the settings under which rows are read, for this transaction."""
    settings = {
        "timeout": milliseconds(options.timeout),
        "fraction": "1.0" if options.limit is None else "0.1",
    }
    connection.execute(_SETTINGS, settings)


@dataclass(frozen=True, slots=True)
class Bound:
    """A report with the values of its parameters.

    Attributes:
        values: of the parameters that are data.
        names: quoted identifiers, of the parameters that name tables and columns.
    """

    report: Report
    values: Mapping[str, Value]
    names: Mapping[str, str]

    def statement(self, before: str = "", behind: str = "") -> TextClause:
        """What SQLAlchemy executes. Spaces keep each parameter apart from what stands around it."""
        parts = []
        for piece in self.report.statement:
            plain = self.plain(piece)
            parts.append(f" :{piece.parameter} " if plain is None else _MISREAD.sub(r"\\\g<0>", plain))
        used = {piece.parameter for piece in self.report.statement} & self.values.keys()
        binds = [bindparam(p.name, type_=_Declared(str(p.type))) for p in self.report.parameters if p.name in used]
        return text(before + "".join(parts) + behind).bindparams(*binds)

    def plain(self, piece: Piece) -> str | None:
        """The piece's text in the statement, or None if it is a value."""
        if piece.parameter is None:
            return piece.text
        return f" {self.names[piece.parameter]} " if piece.parameter in self.names else None

    def type_of(self, name: str) -> str:
        """The declared type of a parameter."""
        return next(str(parameter.type) for parameter in self.report.parameters if parameter.name == name)


def _bound(connection: Connection, report: Report, values: Mapping[str, Value]) -> Bound:
    names = _looked_up(connection, report, values)
    if not report.built_in:
        take_users_path(connection)
    return Bound(report, {name: value for name, value in values.items() if name not in names}, names)


def _looked_up(connection: Connection, report: Report, values: Mapping[str, Value]) -> dict[str, str]:
    """The identifiers that parameters of the types `table` and `column` name, as the catalog has them, quoted. Columns
    are those of the report's table.

    Raises:
        TargetError: there is no such table or column.
        UsageError: there is no name.
    """
    names: dict[str, str] = {}
    target = None
    wanted = [parameter for parameter in report.parameters if parameter.type.is_identifier]
    for parameter in sorted(wanted, key=lambda parameter: parameter.type.name, reverse=True):  # tables first
        value = values.get(parameter.name)
        given = value if isinstance(value, list) else [value]
        if not given or None in given:
            raise UsageError(f"parameter {parameter.name} needs a name", code="bad_parameter")
        if parameter.type.name == "table":
            found = [find_target(connection, str(name)) for name in given]
            target = target or found[0]
            identifiers = [quoted(one.schema, one.name) for one in found]
        elif target is None:
            raise UsageError(
                f"parameter {parameter.name} is a column, and report {report.name} has no table for it",
                code="bad_report",
            )
        else:
            identifiers = [quoted(_column_of(target, str(name))) for name in given]
        names[parameter.name] = ", ".join(identifiers)
    return names


def _column_of(target: Target, name: str) -> str:
    """The column's name: as written, else as SQL reads it, without its quotes or in lower case."""
    quotes = re.fullmatch(r'"((?:[^"]|"")+)"', name)
    column = target.column(name) or target.column(quotes[1].replace('""', '"') if quotes else name.lower())
    if column is None:
        names = [column.name for column in target.columns]
        hint = did_you_mean(name, names) or f"See `harborctl tables {target.label}`."
        raise TargetError(f"{target.label} has no column {name}", code=UNDEFINED_COLUMN, hint=hint)
    return column.name


# Around a report, of which only the columns are asked for.
_ROWLESS = ("SELECT * FROM (", "\n) AS report LIMIT 0")


@contextmanager
def _opened(connection: Connection, bound: Bound, before: str, behind: str) -> Iterator[CursorResult[Any]]:
    """A cursor on the report, with some SQL before and behind it."""
    cursor_names: list[str] = []

    def prepare(_connection: Any, cursor: Any, *_: Any) -> None:
        cursor_names.append(cursor.name)
        _read_text(cursor)

    event.listen(connection, "before_cursor_execute", prepare)
    options = {"stream_results": True}
    try:
        result = connection.execute(bound.statement(before, behind), bound.values, execution_options=options)
    except DBAPIError as error:
        # What psycopg sends before the statement; see its _server_cursor_base.py.
        raise _placed(error, bound, f'DECLARE "{"".join(cursor_names)}" CURSOR FOR {before}') from error
    finally:
        event.remove(connection, "before_cursor_execute", prepare)
    try:
        yield result
    finally:
        result.close()


def _lines(connection: Connection, bound: Bound) -> Generator[bytes, None, None]:
    query: list[str | TypedValue] = []
    for piece in bound.report.statement:
        plain = bound.plain(piece)
        if plain is None:
            name = str(piece.parameter)
            query.append(TypedValue(bound.values[name], bound.type_of(name)))
        else:
            query.append(plain)
    try:
        yield from copied(connection, query)
    except HarborctlError as error:
        raise _explained(error, bound.report) from error


def _read_text(cursor: Any) -> None:
    """Let this psycopg cursor hand out every value as the text that the server sent. 0.2 ms."""
    adapters = cursor.adapters
    loader = adapters.get_loader(adapters.types["text"].oid, 0)
    for known in adapters.types:
        for oid in (known.oid, known.array_oid):
            if oid:
                adapters.register_loader(oid, loader)


class _Declared(UserDefinedType[Any]):
    """The type of a parameter as the report declares it. Written behind each use of it, so that the server need not
    guess and `:since IS NULL` works."""

    cache_ok = True
    render_bind_cast = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        return self.name


# SQLAlchemy's text() takes `:word` for a parameter wherever it stands, in strings too, but not next to another colon
# or a letter; a backslash before it is taken away. https://docs.sqlalchemy.org/en/21/core/sqlelement.html
# So plain text gets a backslash where it would see either.
_MISREAD = re.compile(r"(?<![:\w\\]):(?=\w+(?![:\w]))|\\(?=:\w*(?![:\w]))")


def _columns(connection: Connection, cursor: CursorResult[Any]) -> tuple[Column, ...]:
    # psycopg's Column objects; a row of seven to the DB-API. https://peps.python.org/pep-0249/#description
    described = list(cursor.cursor.description or ())
    types = {row.oid: row for row in connection.execute(_TYPES, {"oids": [column[1] for column in described]})}
    return tuple(
        Column(
            name=name,
            type=types[oid].name,
            kind=_KINDS.get(types[oid].base, Kind.TEXT),
            delimiter=types[oid].delimiter if types[oid].is_list else None,
            base=types[oid].base,
            digits=None if precision is None or scale is None else (precision, scale),
        )
        for name, oid, _, _, precision, scale, *_ in described
    )


def _limited(cursor: CursorResult[Any], limit: int | None) -> Batches:
    left = limit
    # The size has to be given: without it SQLAlchemy 2.1 fetches everything at once.
    for partition in cursor.partitions(BATCH_ROWS):
        batch = list(partition if left is None else partition[:left])
        if left is not None:
            left -= len(batch)
        if batch:
            yield batch
        if left == 0:
            return


# What the general hints do not know about a report.
_HINTS = {
    READ_ONLY_SQL_TRANSACTION: "A report runs in a read-only transaction: it can read and no more.",
    QUERY_CANCELED: "It took longer than --timeout allows, or somebody cancelled it.",
}


def _explained(failure: HarborctlError, report: Report) -> HarborctlError:
    """The failure, with the hint that fits a report."""
    failure.hint = _HINTS.get(failure.code, failure.hint)
    if failure.code == UNDEFINED_TABLE and report.built_in:
        failure.hint = "`harborctl migrate up` makes the tables that built-in reports read."
    return failure


def _placed(error: DBAPIError, bound: Bound, before: str) -> HarborctlError:
    """The error of ours, with line and caret if the server says where in the statement it is. `before` is what was
    sent before the statement."""
    report = bound.report
    failure = _explained(translate(error), report)
    position = getattr(getattr(error.orig, "diag", None), "statement_position", None)
    if not position:
        return failure
    offset = _offset_in_file(bound, int(position) - 1 - len(before))
    line, column = line_and_column(report.text, offset)
    failure.location = Location(report.file, line)
    written = report.text.split("\n")[line - 1].rstrip("\r").expandtabs(1)
    failure.hint = f"{failure.hint or 'The server stopped here:'}\n{_pointed(written, column - 1)}"
    return failure


# Characters of a line that are shown before and behind the place that is meant.
_SHOWN = 60


def _pointed(line: str, index: int) -> str:
    """The line, or what is around the place if it is long, with a caret under the place."""
    first = index - _SHOWN if index > _SHOWN else 0
    before = ("…" if first else "") + visible(line[first:index])
    behind = visible(line[index : index + _SHOWN]) + ("…" if len(line) > index + _SHOWN else "")
    return f"    {before}{behind}\n    {' ' * cell_len(before)}^"


def _offset_in_file(bound: Bound, sent_offset: int) -> int:
    """Where in the report's file the character stands that is at `sent_offset` of what the server got."""
    numbers: dict[str, int] = {}
    sent = 0
    for piece in bound.report.statement:
        plain = bound.plain(piece)
        if plain is None:
            name = str(piece.parameter)
            number = numbers.setdefault(name, len(numbers) + 1)
            plain = f" ${number}::{bound.type_of(name)} "
        if sent_offset < sent + len(plain):
            return piece.offset + (0 if piece.parameter else sent_offset - sent)
        sent += len(plain)
    return len(bound.report.text.rstrip())
