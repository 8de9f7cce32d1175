"""Runs the migrations for `harborctl migrate`, and for plain `alembic` in a checkout.

A run is one transaction behind an advisory lock, so that of two at once the second finds the work done. Offline (`sql`)
the same statements are written out. The version table lives in the ledger's schema. What only looks (`current`,
`check`, `revision --autogenerate`) runs in a read-only transaction, and compares the branch that was asked for, or
those that the database has.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from alembic import context

from harborctl.db.migrations import METADATA, branch_of, revisions, uncompared
from harborctl.db.rights import VERSION_TABLE
from harborctl.db.tables import LEDGER_SCHEMA

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


def run(connection: Connection | None) -> None:
    """Run what the command asked for on `connection`, or write its SQL when there is none."""
    settings: dict[str, Any] = {
        "connection": connection,
        "dialect_name": "postgresql",
        "version_table": VERSION_TABLE,
        "version_table_schema": LEDGER_SCHEMA,
    }
    context.configure(**settings)
    # What the command has said to Alembic.
    said = dict(context.get_context().opts)
    if said.get("dont_mutate") or "revision_context" in said:
        context.configure(**settings, dont_mutate=True)
        with context.begin_transaction():
            context.execute("SET TRANSACTION READ ONLY")
            if "revision_context" in said:
                compare(settings, said)
            context.run_migrations()
        return
    context.configure(**settings, on_version_apply=context.config.attributes.get("on_version_apply", ()))
    with context.begin_transaction():
        context.execute(LOCK)
        context.execute(CREATE_SCHEMA)
        context.run_migrations()
        for statement in context.config.attributes.get("afterwards", ()):
            context.execute(statement)


def compare(settings: dict[str, Any], said: dict[str, Any]) -> None:
    """Let Alembic compare the branches that were asked for, and nothing else."""
    found = context.get_context().get_current_heads()
    head = str(said["revision_context"].command_args["head"])
    asked = context.config.attributes.get("branches") or [branch_of(head) or ""]
    if not asked[0]:
        asked = [name for name, names in revisions().items() if {*names} & {*found}] or list(METADATA)
    schemas = {METADATA[branch].schema for branch in asked}
    # Alembic wants the database at the heads of all branches.
    others = [f"{branch}@head" for branch in METADATA if branch not in asked]

    def include_name(name: str | None, kind: str, _parents: object) -> bool:
        """Look at our schemas only: what else is in the database is none of our business."""
        return kind != "schema" or name in schemas

    def include_object(_: object, _name: str | None, kind: str, reflected: bool, ours: object) -> bool:
        """Others may keep tables in our schemas; which table a migration drops is written by hand."""
        return not (kind == "table" and reflected and ours is None)

    context.configure(
        **settings,
        dont_mutate=True,
        fn=lambda heads, migration: said["fn"]((*heads, *others), migration),
        target_metadata=[METADATA[branch] for branch in asked],
        include_schemas=True,
        include_name=include_name,
        include_object=include_object,
        compare_type=True,
        compare_server_default=True,
    )
    if "connection" not in context.config.attributes:
        sys.stderr.write(f"not compared, for Alembic cannot: {', '.join(uncompared(asked))}\n")


def main() -> None:
    """harborctl hands its connection over; plain `alembic` has none yet, and may be given `-x url=…`."""
    if context.is_offline_mode():
        run(None)
    elif "connection" in context.config.attributes:
        run(context.config.attributes["connection"])
    else:
        from harborctl.db.engine import open_database
        from harborctl.model import ConnectionOptions

        options = ConnectionOptions(url=context.get_x_argument(as_dictionary=True).get("url"))
        with open_database(options, migrate_embedded=False) as database, database.engine.begin() as opened:
            run(opened)


main()
