"""Runs the migrations for `harborctl migrate`, and for plain `alembic` in a checkout.

A run is one transaction behind an advisory lock, so that of two at once the second finds the work done. Offline (`sql`)
the same statements are written out. The version table lives in the ledger's schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alembic import context

from harborctl.db.tables import HARBOR_SCHEMA, LEDGER_SCHEMA, harbor, ledger

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Held until the transaction ends; whoever waited for it sees what the other has committed.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('harborctl migrations', 0))"

# The version table needs its schema before the first migration runs. Not CREATE SCHEMA IF NOT EXISTS: that demands
# the right to create schemas even where an administrator has made this one beforehand.
CREATE_SCHEMA = """\
DO $$ BEGIN
    IF to_regnamespace('harborctl') IS NULL THEN CREATE SCHEMA harborctl; END IF;
END $$"""


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Look at our schemas only: what else is in the database is none of our business."""
    return kind != "schema" or name in {LEDGER_SCHEMA, HARBOR_SCHEMA}


def run(connection: Connection | None) -> None:
    """Run what the command asked for on `connection`, or write its SQL when there is none."""
    context.configure(
        connection=connection,
        dialect_name="postgresql",
        target_metadata=[ledger, harbor],
        version_table_schema=LEDGER_SCHEMA,
        include_schemas=True,
        include_name=include_name,
        compare_type=True,
        compare_server_default=True,
        on_version_apply=context.config.attributes.get("on_version_apply", ()),
    )
    with context.begin_transaction():
        context.execute(LOCK)
        context.execute(CREATE_SCHEMA)
        context.run_migrations()


def main() -> None:
    """harborctl hands its connection over; plain `alembic` has none yet."""
    if context.is_offline_mode():
        run(None)
    elif "connection" in context.config.attributes:
        run(context.config.attributes["connection"])
    else:
        from harborctl.db.engine import open_database
        from harborctl.model import ConnectionOptions

        with open_database(ConnectionOptions(), migrate_embedded=False) as database, database.engine.begin() as opened:
            run(opened)


main()
