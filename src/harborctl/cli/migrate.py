"""`harborctl migrate`: bring our tables to their newest shape, say where a database stands, or take them away."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harborctl.cli.help import Group
from harborctl.cli.invocation import Invocation, command
from harborctl.errors import ExitCode, Interrupted, UsageError
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from harborctl.db.engine import Database

BranchArgument = Annotated[
    Literal["ledger", "harbor"] | None,
    typer.Argument(metavar="[ledger|harbor]", help="One branch; both when left out.", show_default=False),
]
OneBranchArgument = Annotated[Literal["ledger", "harbor"], typer.Argument(metavar="ledger|harbor", help="One branch.")]
BackToOption = Annotated[
    str | None,
    typer.Option("--to", metavar="REV", help="The migration to go back to, `base` for none; default: one step."),
]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="REV", help="The migration that the database is at; default: none.")
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to", metavar="REV", help="The migration to go to, also back; `base` for none; default: the newest."
    ),
]
GrantOption = Annotated[
    str | None, typer.Option("--grant-to", metavar="ROLE", help="Give this role the rights that loads need.")
]
MessageOption = Annotated[str, typer.Option("--message", "-m", help="What the migration is about.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add `migrate` and its commands."""
    group = typer.Typer(
        name="migrate",
        cls=Group,
        help="Make, change and drop the tables of harborctl: the ledger, and Harbor's shop.",
        no_args_is_help=True,
    )
    command(group, "up")(up)
    command(group, "down")(down)
    command(group, "current")(current)
    command(group, "history")(history)
    command(group, "sql")(sql)
    command(group, "check")(check)
    command(group, "merge")(merge)
    app.add_typer(group)


def up(invocation: Invocation, *, branch: BranchArgument = None, grant_to: GrantOption = None) -> None:
    """Apply the migrations that are pending."""
    from harborctl.db import migrations
    from harborctl.db.engine import open_database

    with open_database(invocation.connection, migrate_embedded=False) as database:
        applied = migrations.upgrade(database.engine, branch, grant_to=grant_to)
        if invocation.json:
            _print_json(invocation, {"database": database.url, "applied": applied, "branches": _branches(database)})
            return
        for revision in applied:
            _print(invocation, f"applied {revision}")
        granted = f"; {grant_to} may load" if grant_to else ""
        invocation.note(f"{database.url}: {branch or 'ledger and harbor'} up to date{granted}")


def down(
    invocation: Invocation, *, branch: BranchArgument = None, to: BackToOption = None, yes: YesOption = False
) -> None:
    """Undo the newest migration of a branch, or all after --to. What they made is dropped, with all rows."""
    from harborctl.db import migrations
    from harborctl.db.engine import open_database

    with open_database(invocation.connection, migrate_embedded=False) as database:
        target, undone = migrations.way_down(database.engine, branch, to)
        if undone:
            if not yes:
                _ask(f"undoing {', '.join(undone)} in {database.url} drops what was made, with all rows")
            undone = migrations.downgrade(database.engine, target)
        if invocation.json:
            _print_json(invocation, {"database": database.url, "undone": undone, "branches": _branches(database)})
            return
        for revision in undone:
            _print(invocation, f"undone {revision}")
        if not undone:
            invocation.note(f"{database.url}: nothing to undo")


def current(invocation: Invocation) -> None:
    """Say which migrations a database has, and which are pending."""
    from harborctl.db import migrations
    from harborctl.db.engine import open_database

    with open_database(invocation.connection, migrate_embedded=False) as database:
        if invocation.json:
            _print_json(invocation, {"database": database.url, "branches": _branches(database)})
            return
        for state in migrations.current(database.engine):
            rest = f"pending: {', '.join(state.pending)}" if state.pending else "up to date"
            _print(invocation, f"{state.branch}  {state.revision or 'none'}  {rest}")
        invocation.note(database.url)


def history(invocation: Invocation) -> None:
    """List all migrations, oldest first. Needs no database."""
    from harborctl.db import migrations

    revisions = migrations.history()
    if invocation.json:
        _print_json(invocation, [asdict(revision) for revision in revisions])
        return
    for revision in revisions:
        _print(invocation, f"{revision.id}  {revision.description}")


def sql(
    invocation: Invocation,
    *,
    branch: BranchArgument = None,
    from_: FromOption = None,
    to: ToOption = None,
    grant_to: GrantOption = None,
) -> None:
    """Print the SQL of the migrations, for an administrator to read and run. Needs no database."""
    from harborctl.db import migrations

    script = migrations.offline_sql(branch, start=from_, to=to, grant_to=grant_to)
    if invocation.json:
        _print_json(invocation, {"sql": script})
    else:
        invocation.write(script)


def check(invocation: Invocation, *, branch: BranchArgument = None) -> None:
    """Compare the tables that are there with those that harborctl declares. Only reads; exit code 1 if they differ."""
    from harborctl.db import migrations
    from harborctl.db.engine import open_database

    with open_database(invocation.connection, migrate_embedded=False) as database:
        asked, found = migrations.differences(database.engine, branch)
        left = migrations.uncompared(asked)
        if invocation.json:
            _print_json(
                invocation, {"database": database.url, "branches": asked, "differences": found, "not_compared": left}
            )
        else:
            for difference in found:
                _print(invocation, difference)
            says = f"{len(found)} differences" if found else "as declared"
            invocation.note(f"{database.url}: {' and '.join(asked)} {says}; not compared: {', '.join(left)}")
    if found:
        raise typer.Exit(ExitCode.FAILED)


def merge(invocation: Invocation, *, branch: OneBranchArgument, message: MessageOption = "merge") -> None:
    """Write a migration that joins the heads of a branch, after two were made at once. In a checkout only."""
    from harborctl.db import migrations

    made = migrations.merge(branch, message)
    if invocation.json:
        _print_json(invocation, {"made": made})
    elif made:
        _print(invocation, f"made {made}")
    else:
        invocation.note(f"{branch} has one head: there is nothing to merge")


def _ask(consequence: str) -> None:
    if not os.isatty(0):
        raise UsageError(f"{consequence}, and nobody is there to ask", code="not_confirmed", hint="Say --yes to do it.")
    # Not typer.confirm(): it writes a blank to stdout even when it asks on stderr.
    sys.stderr.write(f"{consequence[0].upper()}{consequence[1:]}. Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise Interrupted("nothing was dropped", code="not_confirmed")


def _branches(database: Database) -> list[dict[str, object]]:
    from harborctl.db import migrations

    return [asdict(state) for state in migrations.current(database.engine)]


def _print(invocation: Invocation, line: str) -> None:
    invocation.out.print(said(line), soft_wrap=True)


def _print_json(invocation: Invocation, document: object) -> None:
    invocation.write(as_json(document) + "\n")
