"""Staging tables beside a target of Citus: on the servers that have its shards, divided as it is.

A merge from a temporary table, which only the coordinator has, moves the rows of the whole target there. From a table
that is colocated with the target each shard is merged where it is, and nothing of the target is moved.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Column, MetaData, Table, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable, DropTable

from harborctl.db.failures import translate
from harborctl.errors import ConnectionFailed
from harborctl.load.write.staging import STAGING, Staging

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.catalog import Target

_DIVIDE = text("""
    SELECT pg_catalog.create_distributed_table(
        CAST(pg_catalog.format('%I.%I', CAST(:schema AS text), CAST(:name AS text)) AS regclass), CAST(:column AS text),
        colocate_with => pg_catalog.format('%I.%I', CAST(:schema AS text), CAST(:target AS text)))
""")
logger = logging.getLogger("harborctl")


def beside_target(connection: Connection, target: Target, staging: Staging) -> Staging:
    """The staged rows, with their numbers, where the rows of the target are. What cannot be there stays where it is:
    the outcome is the same, but takes longer."""
    # Of a reference table the coordinator has all rows, too.
    if target.divided_by is None or target.divided_by not in staging.table.c:
        return staging
    number = staging.order.name
    columns = [Column(c.name, BigInteger if c.name == number else c.type) for c in staging.table.columns]
    # Nobody sees it before the COMMIT, when it is gone, but its name is taken.
    name = f"{STAGING}_{uuid.uuid4().hex[:16]}"
    table = Table(name, MetaData(), *columns, schema=target.schema, prefixes=["UNLOGGED"])
    try:
        with connection.begin_nested():
            connection.execute(CreateTable(table))
            given = {"schema": target.schema, "name": name, "column": target.divided_by, "target": target.name}
            connection.execute(_DIVIDE, given)
    except DBAPIError as error:
        failure = translate(error)
        if isinstance(failure, ConnectionFailed):
            raise
        logger.warning("merging on the coordinator, which takes longer: %s", failure.message)
        return staging
    rows = select(*(staging.table.c[column.name] for column in columns))
    connection.execute(insert(table).from_select([column.name for column in columns], rows))
    return Staging(table, table.c[number], is_spread=True)


def drop_spread(connection: Connection, staging: Staging) -> None:
    """Drop the table of `beside_target`: it is not temporary."""
    if staging.is_spread:
        connection.execute(DropTable(staging.table))
