"""Brings our tables to their newest shape, or takes them away: the door to Alembic and to the scripts in migrations/.

What a load asks on every start (is the ledger there, is anything pending) is answered by one small query, without
importing Alembic, which costs more than all the rest of the start-up. Nothing here prints.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

import harborctl
from harborctl.db.failures import translated
from harborctl.db.tables import LEDGER_SCHEMA, loads, rejects
from harborctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from alembic.config import Config

# Every revision of each branch, oldest first, the last one its head. A test holds this against the scripts.
REVISIONS = {"ledger": ("ledger_0001", "ledger_0002", "ledger_0003"), "harbor": ("harbor_0001",)}

# Alembic's own table, in the ledger's schema.
_VERSION = "alembic_version"


@dataclass(frozen=True, slots=True)
class BranchState:
    """Where a database stands on one branch. `revision` is None before the first migration."""

    branch: str
    revision: str | None
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One migration: `follows` is the one before it on its branch."""

    id: str
    branch: str
    follows: str | None
    description: str


def ledger_installed(database: Engine | Connection) -> bool:
    """Whether the ledger's tables are there."""
    with _connected(database) as connection:
        return bool(_readable(connection, loads.name))


def require_ledger(connection: Connection, *, keeps_rejects: bool = False) -> None:
    """See that the ledger is one that this version can write to.

    Args:
        keeps_rejects: it is to keep rejects until their load is done, which the first ledgers cannot.

    Raises:
        UsageError: it is missing, or a newer harborctl has changed it.
    """
    readable = _readable(connection, loads.name, rejects.name, _VERSION)
    if loads.name not in readable:
        raise UsageError(
            "this database has no ledger yet",
            code="no_ledger",
            hint="Run `harborctl migrate up ledger` once, or load with --no-ledger.",
        )
    if keeps_rejects and rejects.name not in readable:
        raise UsageError(
            "an older harborctl made the ledger of this database: it cannot keep the rejects of a load in chunks",
            code="old_ledger",
            hint="Run `harborctl migrate up ledger` once.",
        )
    # A user who may not read which version it is finds out by writing.
    if readable.get(_VERSION):
        _states(_found(connection))


def current(database: Engine | Connection) -> list[BranchState]:
    """Where the database stands, branch by branch.

    Raises:
        UsageError: a newer harborctl has migrated this database.
    """
    with _connected(database) as connection:
        return _states(_found(connection) if _readable(connection, _VERSION) else set())


def _found(connection: Connection) -> set[str]:
    return set(connection.scalars(text("SELECT version_num FROM harborctl.alembic_version")))


def _states(found: set[str]) -> list[BranchState]:
    if unknown := found.difference(*REVISIONS.values()):
        raise UsageError(
            f"the database is at migration {', '.join(sorted(unknown))}, which this harborctl does not know",
            code="unknown_migration",
            hint="A newer harborctl has migrated it: install that version here too.",
        )
    states = []
    for branch, revisions in REVISIONS.items():
        done = max((number for number, revision in enumerate(revisions, 1) if revision in found), default=0)
        states.append(BranchState(branch, revisions[done - 1] if done else None, revisions[done:]))
    return states


def pending(database: Engine | Connection, branch: str | None = None) -> list[str]:
    """The revisions that `upgrade` would apply; a missing version table means all of them.

    Raises:
        UsageError: a newer harborctl has migrated this database.
    """
    states = current(database)
    return [revision for state in states if branch in {None, state.branch} for revision in state.pending]


def upgrade(engine: Engine, branch: str | None = None) -> list[str]:
    """Apply what is pending, in one transaction, and return the revisions that were applied.

    Several processes may call this at once: one works, the others wait and then find nothing to do.
    """
    from alembic import command

    current(engine)  # refuses a database of a newer harborctl
    return _migrate(engine, partial(command.upgrade, revision=f"{branch}@head" if branch else "heads"))


def downgrade(engine: Engine, target: str) -> list[str]:
    """Undo everything after `target`, in one transaction, and return the revisions that were undone, newest first.

    Args:
        engine: the database.
        target: a revision's id, `base` for everything, or `ledger@base` for one branch.
    """
    from alembic import command

    current(engine)
    return _migrate(engine, partial(command.downgrade, revision=target))


def undone_by(database: Engine | Connection, branch: str | None, to: str | None) -> list[str]:
    """The applied revisions that going back to `to` would undo, newest first; without `to`, all of the branch.

    Raises:
        UsageError: the branch has no revision `to`, or a newer harborctl has migrated this database.
    """
    if to in {None, "base"}:
        branches, kept = [name for name in REVISIONS if branch in {None, name}], 0
    else:
        branches = [name for name, revisions in REVISIONS.items() if branch in {None, name} and to in revisions]
        if not branches:
            raise UsageError(
                f"{branch or 'harborctl'} has no migration {to}",
                hint="`harborctl migrate history` lists them; `base` undoes all.",
            )
        kept = REVISIONS[branches[0]].index(to) + 1
    applied = {state.branch: len(REVISIONS[state.branch]) - len(state.pending) for state in current(database)}
    return [revision for name in branches for revision in reversed(REVISIONS[name][kept : applied[name]])]


def history() -> list[Revision]:
    """All migrations, branch by branch, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config())
    return [
        Revision(revision, branch, follows, (scripts.get_revision(revision).doc or "").rstrip("."))
        for branch, revisions in REVISIONS.items()
        for follows, revision in zip((None, *revisions), revisions, strict=False)
    ]


def offline_sql(branch: str | None = None) -> str:
    """The SQL that brings an empty database, or one with only the other branch, to the newest shape."""
    from alembic import command

    script = io.StringIO()
    command.upgrade(config(script), f"{branch}@head" if branch else "heads", sql=True)
    # Alembic takes it that the version table is missing; after the other branch's script it is there.
    create = "CREATE TABLE harborctl.alembic_version"
    return script.getvalue().replace(create, create.replace("TABLE", "TABLE IF NOT EXISTS"), 1)


def config(output: TextIO | None = None) -> Config:
    """Alembic's configuration, made without an ini file; offline SQL goes to `output`."""
    from alembic.config import Config

    made = Config(output_buffer=output)
    made.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def _scripts() -> Path:
    """An installed harborctl carries the scripts inside; in a checkout they stand at its top, beside src/."""
    package = Path(harborctl.__file__).parent
    inside = package / "migrations"
    return inside if (inside / "env.py").is_file() else package.parents[1] / "migrations"


@contextmanager
def _connected(database: Engine | Connection) -> Iterator[Connection]:
    with translated():
        if isinstance(database, Connection):
            yield database
        else:
            with database.connect() as connection:
                yield connection


def _readable(connection: Connection, *names: str) -> dict[str, bool]:
    """Which of these tables of ours are there, and whether this user may read them."""
    # Not to_regclass(): without a right to the schema that fails, and the answer would be an error where it is a yes.
    statement = text(
        "SELECT c.relname, has_table_privilege(c.oid, 'SELECT') AS readable"
        " FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE n.nspname = :schema AND c.relname = ANY(:names)"
    )
    found = connection.execute(statement, {"schema": LEDGER_SCHEMA, "names": list(names)})
    return {row.relname: row.readable for row in found}


def _migrate(engine: Engine, run: Callable[[Config], None]) -> list[str]:
    from alembic.util import CommandError

    moved: list[str] = []
    settings = config()
    settings.attributes["on_version_apply"] = lambda *, step, **_: moved.append(step.up_revision_id)
    # READ COMMITTED: after waiting for the lock, the next statement must see what the other process has committed.
    with translated(), engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
        settings.attributes["connection"] = connection
        try:
            run(settings)
        except CommandError as error:
            raise UsageError(f"{error}", hint="`harborctl migrate history` lists the revisions.") from error
    return moved
