"""Temporary tables shaped like a plan's columns: types and names of the target, gone at commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from psycopg import sql
from sqlalchemy import BigInteger, Column, Identity, MetaData, Table, literal_column
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from harborctl.db.catalog import ServerType
from harborctl.db.failures import translate
from harborctl.errors import AccessDenied, TargetError
from harborctl.load.plan.route import MOST_COLUMNS
from harborctl.sqlstate import INSUFFICIENT_PRIVILEGE, TOO_MANY_COLUMNS

if TYPE_CHECKING:
    from collections.abc import Collection

    import psycopg
    from sqlalchemy import ColumnElement, Connection

    from harborctl.db.catalog import TargetColumn
    from harborctl.load.plan.plan import Plan

# Temporary tables are named with it: without, an ordinary table of that name might be meant.
TEMPORARY_SCHEMA = "pg_temp"
STAGING = "harborctl_staging"
ROW_NUMBER = "harborctl_row"


@dataclass(frozen=True, slots=True)
class Staging:
    """A staging table.

    Attributes:
        order: rises with the order in which rows were staged.
        is_spread: it is on the servers that have the target's shards, and `order` is the number of a row in the load.
    """

    table: Table
    order: ColumnElement[Any]
    is_spread: bool = False


def create_staging(connection: Connection, plan: Plan, name: str = STAGING) -> Table:
    """Create a temporary table for the plan's columns, dropped at commit."""
    return _create(connection, plan, name, [Column(c.target.name, _staged_type(c.target)) for c in plan.columns])


def create_numbered(connection: Connection, plan: Plan, name: str, number: str) -> Table:
    """Create a temporary table for the plan's columns and the numbers of rows, which their writer knows."""
    columns = [Column(c.target.name, _staged_type(c.target)) for c in plan.columns]
    return _create(connection, plan, name, [*columns, Column(number, BigInteger)])


def stage_for_merge(connection: Connection, plan: Plan, *, numbered: bool) -> Staging:
    """Create the staging table of a load.

    COPY fills a table of its own transaction from front to back, so that `ctid` tells the order, for nothing. An INSERT
    puts a short row into a gap that a long one has left: such rows must be `numbered` (for COPY that costs a tenth).
    What the target refuses in any case, NULL where it is NOT NULL, is refused here, where its place is still known,
    unless a trigger of the target, or of a partition, may fill it in.
    """
    columns: list[Column[Any]] = [
        Column(
            column.target.name,
            _staged_type(column.target),
            nullable=bool(plan.target.before_triggers) or plan.target.kind != "r" or not column.target.not_null,
        )
        for column in plan.columns
    ]
    order: ColumnElement[Any] = literal_column("ctid")
    if numbered:
        number: Column[Any] = Column(free_name(ROW_NUMBER, plan.names), BigInteger, Identity(always=True))
        columns.append(number)
        order = number
    return Staging(_create(connection, plan, STAGING, columns), order)


def is_temporary(table: Table) -> bool:
    """Whether it is one of these, and not the target."""
    return table.schema == TEMPORARY_SCHEMA


def identifier(table: Table) -> sql.Identifier:
    """The table in a statement of the driver's."""
    return sql.Identifier(*filter(None, (table.schema, table.name)))


def free_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or a name like it that is not taken."""
    while wanted in taken:
        wanted += "_"
    return wanted


def _staged_type(column: TargetColumn) -> ServerType:
    """The column's type, with a collation that says which keys are the same."""
    return ServerType(f"{column.type} COLLATE {column.folding}") if column.folding else column.server_type


def _create(connection: Connection, plan: Plan, name: str, columns: list[Column[Any]]) -> Table:
    if len(columns) > MOST_COLUMNS:
        raise TargetError(
            f"{len(plan.names):,} columns of {plan.target.label} are filled: with the number of each row a staging"
            f" table would have more than the {MOST_COLUMNS:,} that a table can have",
            code=TOO_MANY_COLUMNS,
            hint="Let the load write by COPY and end at the first bad row (--writer copy --on-error abort), or leave a"
            " column out with --skip-columns.",
        )
    table = Table(
        name, MetaData(), *columns, schema=TEMPORARY_SCHEMA, prefixes=["TEMPORARY"], postgresql_on_commit="DROP"
    )
    try:
        connection.execute(CreateTable(table))
    except DBAPIError as error:
        if not isinstance(translate(error), AccessDenied):
            raise
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        raise AccessDenied(
            "this load puts rows into a temporary table first, which this user may not create",
            code=INSUFFICIENT_PRIVILEGE,
            hint=f"The owner of the database can GRANT TEMPORARY ON DATABASE {driver.info.dbname} to this user.",
        ) from error
    return table
