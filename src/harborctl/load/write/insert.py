"""INSERT as the target needs it: with OVERRIDING SYSTEM VALUE where a GENERATED ALWAYS identity column is filled.

COPY does that by itself; SQLAlchemy has no word for it.
https://www.postgresql.org/docs/current/sql-insert.html#id-1.9.3.152.6.2
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.compiler import compiles

from harborctl.load.write.staging import is_temporary

if TYPE_CHECKING:
    from sqlalchemy import Table

    from harborctl.load.plan.plan import Plan


class OverridingInsert(Insert):
    """INSERT … OVERRIDING SYSTEM VALUE."""

    inherit_cache = True


@compiles(OverridingInsert, "postgresql")
def _compile(statement: OverridingInsert, compiler: Any, **settings: Any) -> str:
    compiled = str(compiler.visit_insert(statement, **settings))
    quote = compiler.preparer.quote
    columns = ", ".join(quote(column.name) for column in statement.table.columns)
    head = f"{compiler.preparer.format_table(statement.table)} ({columns})"
    before, found, rest = compiled.partition(head)
    if not found:
        raise AssertionError("every column of an overriding INSERT must be filled")
    return f"{before}{head} OVERRIDING SYSTEM VALUE{rest}"


def insert_into(table: Table, plan: Plan) -> Insert:
    """An INSERT of the plan's columns, and of its touched one, into its target or into a table shaped like them."""
    # Of the columns behind a view nobody tells. Where there is no identity column the words do nothing.
    fills_identity = plan.target.kind == "v" or any(column.target.always_identity for column in plan.columns)
    if not fills_identity or is_temporary(table):  # no identity column is copied into a staging table
        return insert(table)
    touch = plan.merge.touch if plan.merge else None
    return OverridingInsert(plan.target.table((*plan.names, *([touch] if touch else []))))
