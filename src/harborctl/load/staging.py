"""Temporary tables shaped like a plan's columns: types and names of the target, no constraint, gone at commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.schema import CreateTable

from harborctl.db.catalog import ServerType

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.load.plan import Plan

STAGING = "harborctl_staging"


def create_staging(connection: Connection, plan: Plan, name: str = STAGING) -> Table:
    """Create a temporary table for the plan's columns, dropped at commit. Rows keep their order: its `ctid` rises."""
    table = Table(
        name,
        MetaData(),
        *(Column(column.target.name, ServerType(column.target.type)) for column in plan.columns),
        prefixes=["TEMPORARY"],
        postgresql_on_commit="DROP",
    )
    connection.execute(CreateTable(table))
    return table
