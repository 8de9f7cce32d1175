"""Counts every row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Integer, bindparam, func, select

from harborctl.db.relations import (
    condition,
)
from harborctl.db.search_path import on_users_path

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.relations import Relation


def exact_rows(connection: Connection, relation: Relation, where: str | None) -> int:
    """The rows, or those that meet the condition, counted one by one."""
    statement = select(func.count()).select_from(relation.named())
    if where is not None:
        # The bound value is there for what `condition` says.
        statement = select(func.count(bindparam("one", 1, Integer))).select_from(relation.named())
        statement = statement.where(condition(where))
    with on_users_path(connection):
        return connection.execute(statement).scalar_one()
