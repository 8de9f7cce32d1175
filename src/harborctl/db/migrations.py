"""Brings our tables to their newest shape, or takes them away: the door to Alembic and to the scripts in migrations/.

What a load asks on every start (is the ledger there, is anything pending) is answered by one small query and the heads
of the scripts, without importing Alembic, which costs more than all the rest of the start-up. Nothing here prints.
"""

from __future__ import annotations

import ast
import io
import re
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, Connection, Engine, PrimaryKeyConstraint, text
from sqlalchemy.exc import DBAPIError, ProgrammingError

from harborctl import sqlstate
from harborctl.db.failures import translated
from harborctl.db.rights import VERSION_TABLE, grants
from harborctl.db.storage import require_coordinator
from harborctl.db.tables import (
    HARBOR_SCHEMA,
    LEDGER_SCHEMA,
    STOCK_FUNCTIONS,
    STOCK_TRIGGERS,
    harbor,
    ledger,
    loads,
    rejects,
    stock_movements,
    variants,
)
from harborctl.errors import HarborctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TextIO

    from alembic.config import Config

METADATA = {"ledger": ledger, "harbor": harbor}

# An object of that name is there already; or what is there belongs to somebody else.
_IN_THE_WAY = {sqlstate.DUPLICATE_TABLE, sqlstate.DUPLICATE_OBJECT, sqlstate.DUPLICATE_COLUMN}


@dataclass(frozen=True, slots=True)
class BranchState:
    """Where a database stands on one branch. `revision` is None before the first migration."""

    branch: str
    revision: str | None
    pending: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Revision:
    """One migration: `follows` is the one before it on its branch, of a merge the first of several."""

    id: str
    branch: str
    follows: str | None
    description: str


@dataclass(frozen=True, slots=True)
class _Script:
    revision: str
    follows: tuple[str, ...]
    branch: str


@cache
def _scripts() -> dict[str, _Script]:
    """What the scripts say of themselves, each after those that it follows."""
    heads = [_head(file) for file in sorted((_folder() / "versions").glob("*.py"))]
    made: dict[str, _Script] = {}
    while ready := [head for head in heads if head["revision"] not in made and made.keys() >= set(_follows(head))]:
        for head in ready:
            follows, labels = _follows(head), _several(head.get("branch_labels"))
            branch = labels[0] if labels else made[follows[0]].branch
            made[head["revision"]] = _Script(head["revision"], follows, branch)
    return made


# What Alembic reads of it.
_HEAD = {"revision", "down_revision", "branch_labels"}


def _head(file: Path) -> dict[str, Any]:
    """The constants that a script begins with."""
    beginning = ast.parse(file.read_text(encoding="utf-8").partition("\ndef ")[0])
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in beginning.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in _HEAD
    }


def _follows(head: dict[str, Any]) -> tuple[str, ...]:
    return _several(head.get("down_revision"))


def _several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def revisions() -> dict[str, tuple[str, ...]]:
    """Every revision of each branch, oldest first, as the scripts have them. The ledger's branch comes first."""
    found: dict[str, tuple[str, ...]] = {"ledger": ()}
    for script in _scripts().values():
        found[script.branch] = (*found.get(script.branch, ()), script.revision)
    return found


def branch_of(name: str) -> str | None:
    """The branch of a revision, or of a name such as `ledger@head`; None if there is none."""
    script = _scripts().get(name)
    label = name.partition("@")[0]
    return script.branch if script else label if label in revisions() else None


def _up_to(found: Iterable[str]) -> set[str]:
    """These revisions and all that they follow."""
    waiting, reached = list(found), set[str]()
    while waiting:
        if (name := waiting.pop()) not in reached:
            reached.add(name)
            waiting += _scripts()[name].follows
    return reached


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
        TargetError: it is missing on a worker of Citus.
    """
    readable = _readable(connection, loads.name, rejects.name, VERSION_TABLE)
    if loads.name not in readable:
        require_coordinator(connection)
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
    if readable.get(VERSION_TABLE):
        _states(_found(connection))


def require_harbor(connection: Connection) -> None:
    """See that Harbor's tables are those that this version works with.

    Raises:
        UsageError: they are missing, or an older or a newer harborctl has made them.
    """
    readable = _readable(connection, VERSION_TABLE)
    # A user who may not read which version it is is told by what the tables look like.
    states = current(connection) if readable.get(VERSION_TABLE) else []
    applied, missing = next(((s.revision, s.pending) for s in states if s.branch == "harbor"), (None, ()))
    if states and not missing:
        return
    tables = set(connection.scalars(_HARBOR_TABLES, {"schema": HARBOR_SCHEMA}))
    if not states and stock_movements.name in tables:
        return
    if applied or variants.name in tables:
        raise UsageError(
            "an older harborctl made Harbor's tables in this database: they lack what stock commands need",
            code="old_harbor",
            hint="Run `harborctl migrate up harbor` once.",
        )
    raise UsageError(
        "this database has no tables of Harbor's shop yet",
        code="no_harbor",
        hint="Run `harborctl migrate up harbor` once, or name another database.",
    )


_HARBOR_TABLES = text(
    "SELECT c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = :schema"
)


def current(database: Engine | Connection) -> list[BranchState]:
    """Where the database stands, branch by branch.

    Raises:
        UsageError: a newer harborctl has migrated this database.
    """
    with _connected(database) as connection:
        return _states(_found(connection) if _readable(connection, VERSION_TABLE) else set())


def _found(connection: Connection) -> set[str]:
    try:
        return set(connection.scalars(text("SELECT version_num FROM harborctl.alembic_version")))
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) == sqlstate.UNDEFINED_COLUMN:
            raise UsageError(
                f"{LEDGER_SCHEMA}.{VERSION_TABLE} has no column version_num: it is none of harborctl's",
                code="foreign_migration",
                hint="Rename it, or move it to another schema, and run `harborctl migrate up`.",
            ) from error
        raise


def _states(found: set[str]) -> list[BranchState]:
    if unknown := found - _scripts().keys():
        _refuse(sorted(unknown))
    done = _up_to(found)
    return [
        BranchState(
            branch,
            next((name for name in reversed(names) if name in found), None),
            tuple(name for name in names if name not in done),
        )
        for branch, names in revisions().items()
    ]


def _refuse(unknown: list[str]) -> None:
    named = ", ".join(unknown)
    ours = re.compile(rf"({'|'.join(revisions())})_\d+")
    if foreign := [name for name in unknown if not ours.fullmatch(name)]:
        raise UsageError(
            f"{LEDGER_SCHEMA}.{VERSION_TABLE} has the migration {', '.join(foreign)}, which is none of harborctl's",
            code="foreign_migration",
            hint="Give the other program a version table of its own (Alembic's version_table_schema), and delete its"
            " row from this one.",
        )
    raise UsageError(
        f"the database is at migration {named}, which this harborctl does not know",
        code="unknown_migration",
        hint="A newer harborctl has migrated it: install that version here too.",
    )


def pending(database: Engine | Connection, branch: str | None = None) -> list[str]:
    """The revisions that `upgrade` would apply; a missing version table means all of them.

    Raises:
        UsageError: a newer harborctl has migrated this database.
    """
    states = current(database)
    return [revision for state in states if branch in {None, state.branch} for revision in state.pending]


def upgrade(engine: Engine, branch: str | None = None, *, grant_to: str | None = None) -> list[str]:
    """Apply what is pending, in one transaction, and return the revisions that were applied.

    Several processes may call this at once: one works, the others wait and then find nothing to do.

    Args:
        engine: the database.
        branch: one branch; without it, all.
        grant_to: a role that gets the rights that loads need, in the same transaction.
    """
    from alembic import command

    current(engine)  # refuses a database of a newer harborctl
    run = partial(command.upgrade, revision=f"{branch}@head" if branch else "heads")
    return _migrate(engine, run, grants(_branches(branch), grant_to) if grant_to else [])


def downgrade(engine: Engine, target: str) -> list[str]:
    """Undo everything after `target`, in one transaction, and return the revisions that were undone, newest first.

    Args:
        engine: the database.
        target: a revision's id, `base` for everything, or `ledger@base` for one branch.
    """
    from alembic import command

    current(engine)
    return _migrate(engine, partial(command.downgrade, revision=target))


def way_down(database: Engine | Connection, branch: str | None, to: str | None) -> tuple[str, list[str]]:
    """What `downgrade` is to be told to go back to `to`, and the applied revisions that it would undo, newest first.

    Args:
        database: the database.
        branch: one branch.
        to: a revision, or `base` for all of the branch, or of both; without it, one step back on the branch.

    Raises:
        UsageError: one step, and no branch; no such revision; or a newer harborctl has migrated this database.
    """
    states = {state.branch: state for state in current(database)}
    applied = [name for of, names in revisions().items() for name in reversed(names) if name not in states[of].pending]
    if to == "base":
        return f"{branch}@base" if branch else "base", [name for name in applied if branch in {None, branch_of(name)}]
    if to:
        of = _branch_with(to, branch)
        return to, [name for name in applied if branch_of(name) == of and name not in _up_to([to])]
    if not branch:
        raise UsageError(
            f"which branch: {' or '.join(revisions())}?",
            code="no_branch",
            hint="`harborctl migrate down ledger` goes back one step; --to base undoes all.",
        )
    newest = states[branch].revision
    if not newest:
        return f"{branch}@base", []
    return next(iter(_scripts()[newest].follows), f"{branch}@base"), [newest]


def _branch_with(revision: str, branch: str | None) -> str:
    found = _scripts().get(revision)
    if not found or branch not in {None, found.branch}:
        raise UsageError(
            f"{branch or 'harborctl'} has no migration {revision}",
            hint="`harborctl migrate history` lists them; `base` undoes all.",
        )
    return found.branch


def _branches(branch: str | None) -> list[str]:
    return [branch] if branch else list(revisions())


def history() -> list[Revision]:
    """All migrations, branch by branch, oldest first."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config())
    return [
        Revision(
            name,
            branch,
            next(iter(_scripts()[name].follows), None),
            (scripts.get_revision(name).doc or "").rstrip("."),
        )
        for branch, names in revisions().items()
        for name in names
    ]


def offline_sql(
    branch: str | None = None, *, start: str | None = None, to: str | None = None, grant_to: str | None = None
) -> str:
    """The SQL that brings a database from `start` to `to`, up or down.

    Args:
        branch: one branch; without it that of `start` or `to`, or both.
        start: the revision that the database is at; without it, an empty database or one with only the other branch.
        to: the revision to go to, `base` for none; without it, the newest.
        grant_to: a role that gets the rights that loads need.

    Raises:
        UsageError: no such revision, or nothing to go down from.
    """
    from alembic import command

    start = None if start == "base" else start
    for named in filter(None, (start, None if to == "base" else to)):
        branch = _branch_with(named, branch)
    script = io.StringIO()
    settings = config(script)
    settings.attributes["afterwards"] = grants(_branches(branch), grant_to) if grant_to else []
    if to == "base" and not start:
        raise UsageError("there is nothing to undo before the first migration", hint="Say --from what to go back.")
    if start and to and (to == "base" or to in _up_to([start])):
        command.downgrade(settings, f"{start}:{branch}@base" if to == "base" else f"{start}:{to}", sql=True)
    else:
        end = to or (f"{branch}@head" if branch else "heads")
        command.upgrade(settings, f"{start}:{end}" if start else end, sql=True)
    # Alembic takes it that the version table is missing; after the other branch's script it is there.
    create = f"CREATE TABLE {LEDGER_SCHEMA}.{VERSION_TABLE}"
    return script.getvalue().replace(create, create.replace("TABLE", "TABLE IF NOT EXISTS"), 1)


def differences(engine: Engine, branch: str | None = None) -> tuple[list[str], list[str]]:
    """The branches that were compared, and what of their tables is not as harborctl declares it, a line each.

    Args:
        engine: the database.
        branch: one branch; without it, those that are there.

    Raises:
        UsageError: migrations are pending, or none was applied.
    """
    from alembic import command
    from alembic.util import AutogenerateDiffsDetected

    states = {state.branch: state for state in current(engine)}
    asked = [branch] if branch else [name for name, state in states.items() if state.revision] or ["ledger"]
    if missing := [revision for name in asked for revision in states[name].pending]:
        raise UsageError(
            f"{', '.join(missing)} pending: what is there cannot be compared",
            code="pending",
            hint=f"`harborctl migrate up {asked[0]}` applies them.",
        )
    settings = config()
    settings.attributes["branches"] = asked
    with translated(), engine.connect() as connection:
        missing_code = _missing_code(connection) if "harbor" in asked else []
    with translated(), engine.connect() as connection:
        settings.attributes["connection"] = connection
        try:
            command.check(settings)
        except AutogenerateDiffsDetected as found:
            return asked, [*map(_described, found.diffs), *missing_code]
    return asked, missing_code


_CODE = text("""
    SELECT 'add_trigger ' || wanted AS missing FROM unnest(CAST(:triggers AS text[])) AS wanted
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgname = wanted AND tgenabled <> 'D'
        AND tgrelid = to_regclass('harbor.variants')
    )
    UNION ALL
    SELECT 'add_function ' || wanted FROM unnest(CAST(:functions AS text[])) AS wanted
    WHERE to_regproc('harbor.' || wanted) IS NULL
    ORDER BY 1
""")


def _missing_code(connection: Connection) -> list[str]:
    """Which triggers and functions of Harbor's tables are gone, or are switched off."""
    names = {"triggers": list(STOCK_TRIGGERS), "functions": list(STOCK_FUNCTIONS)}
    return [f"{HARBOR_SCHEMA}: {missing}" for missing in connection.scalars(_CODE, names)]


def _described(difference: Any) -> str:
    """One of autogenerate's differences, `add_…` for what is missing: their forms differ."""
    if isinstance(difference, list):  # what is different about a column
        kind, schema, table, column = difference[0][:4]
        return f"{schema}.{table}.{column}: {kind}, {difference[0][-2]} should be {difference[0][-1]}"
    kind, *about = difference
    if kind.endswith("_column"):
        schema, table, column = about
        return f"{schema}.{table}.{column.name}: {kind}"
    thing = about[0]
    table = getattr(thing, "table", thing)
    return f"{table.fullname}: {kind}" + (f" {thing.name}" if table is not thing else "")


def uncompared(branches: Iterable[str]) -> list[str]:
    """The constraints of these branches that autogenerate does not look at."""
    return [
        str(constraint.name)
        for branch in branches
        for table in METADATA[branch].sorted_tables
        for constraint in sorted(table.constraints, key=lambda constraint: str(constraint.name))
        if isinstance(constraint, CheckConstraint | PrimaryKeyConstraint)
    ]


def merge(branch: str, message: str) -> str | None:
    """Write a migration that joins the heads of a branch, and return its file; None if there is but one head.

    Raises:
        UsageError: this harborctl is not run from a checkout.
    """
    from alembic import command
    from alembic.config import Config

    followed = {name for script in _scripts().values() for name in script.follows}
    heads = [name for name in revisions()[branch] if name not in followed]
    if len(heads) == 1:
        return None
    settings = _folder().parent / "alembic.ini"
    if not settings.is_file():
        raise UsageError("migrations are written in a checkout of harborctl, and this is an installed one")
    last = max(int(number) for name in revisions()[branch] for number in re.findall(r"\d+", name))
    with redirect_stdout(io.StringIO()):
        made = command.merge(Config(settings), heads, message, rev_id=f"{branch}_{last + 1:04}")
    _scripts.cache_clear()
    return made.path if made else None


def config(output: TextIO | None = None) -> Config:
    """Alembic's configuration, made without an ini file; offline SQL goes to `output`."""
    from alembic.config import Config

    made = Config(output_buffer=output, stdout=io.StringIO())
    made.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


def _folder() -> Path:
    """An installed harborctl carries the scripts inside; in a checkout they stand at its top, beside src/."""
    package = Path(__file__).parent.parent
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


def _migrate(engine: Engine, run: Callable[[Config], None], afterwards: Sequence[str] = ()) -> list[str]:
    from alembic.util import CommandError

    moved: list[str] = []
    settings = config()
    settings.attributes["on_version_apply"] = lambda *, step, **_: moved.append(step.up_revision_id)
    settings.attributes["afterwards"] = afterwards
    try:
        # READ COMMITTED: after waiting for the lock, the next statement must see what the other process has committed.
        with translated(), engine.execution_options(isolation_level="READ COMMITTED").begin() as connection:
            settings.attributes["connection"] = connection
            run(settings)
    except CommandError as error:
        raise UsageError(f"{error}", hint="`harborctl migrate history` lists the revisions.") from error
    except HarborctlError as error:
        if error.code in {*_IN_THE_WAY, sqlstate.INSUFFICIENT_PRIVILEGE} and isinstance(error.__cause__, DBAPIError):
            raise _with_owner(engine, error, error.__cause__.statement or "") from error
        raise
    return moved


_OWNERS = text("""
    SELECT n.nspname || '.' || c.relname AS name, pg_get_userbyid(c.relowner) AS owner
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = ANY(:schemas)
    UNION ALL
    SELECT nspname, pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = ANY(:schemas)
""")


def _with_owner(engine: Engine, error: HarborctlError, statement: str) -> HarborctlError:
    """`error`, with the relation, or else the schema, that the statement ran into, and whose it is."""
    with engine.connect() as connection:
        found = connection.execute(_OWNERS, {"schemas": [metadata.schema for metadata in METADATA.values()]})
        owners = {row.name: row.owner for row in found}
    named = set(re.findall(r"\w+(?:\.\w+)?", statement)) & owners.keys()
    message = error.message
    if not named:
        hint = f"Run it as a user who may create schemas here, or CREATE SCHEMA {LEDGER_SCHEMA} AUTHORIZATION … before."
    else:
        name = max(named, key=len)
        message = f"{message}: {name} belongs to {owners[name]}"
        hint = f"No migration of harborctl made it: rename {name}, or move it to another schema."
        if error.code == sqlstate.INSUFFICIENT_PRIVILEGE:
            hint = f"Run `harborctl migrate` as {owners[name]}, or ask that user for the right."
    return type(error)(message, code=error.code, hint=hint)
