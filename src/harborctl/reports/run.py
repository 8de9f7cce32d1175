"""Runs a report: bound values, a cursor on the server, rows as the server writes them.

All in a read-only transaction that is never committed. Memory does not grow with the result. What the server says
against the statement is placed in the report's file.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import UserDefinedType

from harborctl.db.failures import translate
from harborctl.model import Location
from harborctl.reports.lexer import line_and_column
from harborctl.reports.result import Column, Kind, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, CursorResult, Engine, TextClause

    from harborctl.errors import HarborctlError
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
    SELECT type.oid, format_type(type.oid, NULL) AS name, type.typcategory = 'A' AND element.oid IS NOT NULL AS is_list,
           coalesce(base.typname, type.typname) AS base, coalesce(element.typdelim, ',') AS delimiter
    FROM pg_type AS type
    LEFT JOIN pg_type AS element ON element.oid = type.typelem AND element.typarray = type.oid
    LEFT JOIN pg_type AS base ON base.oid = coalesce(nullif(element.typbasetype, 0), element.oid)
    WHERE type.oid = ANY(:oids)
""")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How to run a report.

    Attributes:
        timeout: seconds after which the server ends a statement; 0 for never. Each batch is a statement of its own.
        limit: rows after which to stop; None for all.
    """

    timeout: float = 60.0
    limit: int | None = None


@contextmanager
def run_report(
    engine: Engine, report: Report, values: Mapping[str, Value], options: RunOptions | None = None
) -> Iterator[Result]:
    """The result of `report`, which can be read inside this block.

    Raises:
        StatementFailed: the server refuses the report, as it does if the report writes.
        ConnectionFailed: there is no connection, or it was lost.
    """
    options = options or RunOptions()
    settings = {
        "timeout": f"{round(options.timeout * 1000)}ms",
        "fraction": "1.0" if options.limit is None else "0.1",
    }
    try:
        with engine.connect() as connection:
            connection.execution_options(postgresql_readonly=True)
            connection.execute(_SETTINGS, settings)
            with _opened(connection, report, values) as cursor:
                yield Result(_columns(connection, cursor), _limited(cursor, options.limit))
    except DBAPIError as error:
        raise _failure(error, report) from error


@contextmanager
def _opened(connection: Connection, report: Report, values: Mapping[str, Value]) -> Iterator[CursorResult[Any]]:
    """The report's cursor."""
    names: list[str] = []

    def prepare(_connection: Any, cursor: Any, *_: Any) -> None:
        names.append(cursor.name)
        _read_text(cursor)

    event.listen(connection, "before_cursor_execute", prepare)
    options = {"stream_results": True}
    try:
        result = connection.execute(statement(report), values, execution_options=options)
    except DBAPIError as error:
        raise _placed(error, report, names) from error
    finally:
        event.remove(connection, "before_cursor_execute", prepare)
    try:
        yield result
    finally:
        result.close()


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


def statement(report: Report) -> TextClause:
    """The report's statement with its parameters typed. Spaces keep each apart from what stands around it."""
    parts = [
        f" :{piece.parameter} " if piece.parameter else _MISREAD.sub(r"\\\g<0>", piece.text)
        for piece in report.statement
    ]
    used = {piece.parameter for piece in report.statement}
    binds = [bindparam(p.name, type_=_Declared(str(p.type))) for p in report.parameters if p.name in used]
    return text("".join(parts)).bindparams(*binds)


def _columns(connection: Connection, cursor: CursorResult[Any]) -> tuple[Column, ...]:
    # psycopg's Column objects; a row of seven to the DB-API. https://peps.python.org/pep-0249/#description
    described = [(name, oid) for name, oid, *_ in cursor.cursor.description or ()]
    types = {row.oid: row for row in connection.execute(_TYPES, {"oids": [oid for _, oid in described]})}
    return tuple(
        Column(
            name=name,
            type=types[oid].name,
            kind=_KINDS.get(types[oid].base, Kind.TEXT),
            delimiter=types[oid].delimiter if types[oid].is_list else None,
        )
        for name, oid in described
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
    "25006": "A report runs in a read-only transaction: it can read and no more.",
    "57014": "It took longer than --timeout allows, or somebody cancelled it.",
}
_UNDEFINED_TABLE = "42P01"


def _failure(error: DBAPIError, report: Report) -> HarborctlError:
    failure = translate(error)
    failure.hint = _HINTS.get(failure.code, failure.hint)
    if failure.code == _UNDEFINED_TABLE and report.built_in:
        failure.hint = "`harborctl migrate up` makes the tables that built-in reports read."
    return failure


def _placed(error: DBAPIError, report: Report, cursor_names: list[str]) -> HarborctlError:
    """The error of ours, with line and caret if the server says where in the statement it is."""
    failure = _failure(error, report)
    position = getattr(getattr(error.orig, "diag", None), "statement_position", None)
    if not position or not cursor_names:
        return failure
    # What psycopg sent before the statement; see its _server_cursor_base.py.
    before = f'DECLARE "{cursor_names[-1]}" CURSOR FOR '
    offset = _offset_in_file(report, int(position) - 1 - len(before))
    line, column = line_and_column(report.text, offset)
    failure.location = Location(report.file, line)
    shown = report.text.split("\n")[line - 1].rstrip("\r").expandtabs(1)
    pointed = f"    {shown}\n    {' ' * (column - 1)}^"
    failure.hint = f"{failure.hint or 'The server stopped here:'}\n{pointed}"
    return failure


def _offset_in_file(report: Report, sent_offset: int) -> int:
    """Where in the report's file the character stands that is at `sent_offset` of what the server got."""
    types = {parameter.name: parameter.type for parameter in report.parameters}
    numbers: dict[str, int] = {}
    sent = 0
    for piece in report.statement:
        if piece.parameter is None:
            length = len(piece.text)
        else:
            number = numbers.setdefault(piece.parameter, len(numbers) + 1)
            length = len(f" ${number}::{types[piece.parameter]} ")
        if sent_offset < sent + length:
            return piece.offset + (0 if piece.parameter else sent_offset - sent)
        sent += length
    return len(report.text.rstrip())
