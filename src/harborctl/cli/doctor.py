"""`harborctl doctor`: is this database fit to be loaded into, and what to do if not."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, Summarized, command
from harborctl.errors import ConnectionFailed, ExitCode
from harborctl.plain_text import as_json

if TYPE_CHECKING:
    from harborctl.db.health import Check

EXAMPLES = """
[bold]Examples[/bold]

  harborctl doctor

  harborctl doctor --url postgresql://etl@db.example.org/warehouse

  harborctl doctor --table sales.orders --json

[bold]Exit codes[/bold]

  0  nothing stands in the way   1  something does   3  no connection
"""
COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}

TableOption = Annotated[
    str | None, typer.Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Also look at this target of loads.")
]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "doctor", epilog=EXAMPLES)(doctor)


def doctor(invocation: Invocation, *, table: TableOption = None) -> None:
    """Look at the database as a load will meet it: connection, rights, migrations, settings.

    Each line is ok, warn or fail, and says what to do. It only reads.
    """
    from harborctl.db.engine import open_database
    from harborctl.db.health import Check, State, examine

    checks: list[Check] = []
    url = None
    failure = None
    try:
        with open_database(invocation.connection, migrate_embedded=False) as database:
            url = database.url
            for check in examine(database, table):
                checks.append(check)
                if not invocation.json:
                    _print(invocation, check)
    except ConnectionFailed as error:
        failure = error
        checks.append(Check("connection", State.FAIL, error.message, error.hint))
        if not invocation.json:
            _print(invocation, checks[-1])
    worst = max((check.state for check in checks), key=list(State).index)
    if invocation.json:
        document: dict[str, Any] = {"status": worst, "database": url, "checks": [asdict(check) for check in checks]}
        invocation.write(as_json(document, indent=2) + "\n")
    if failure:
        raise Summarized(failure)
    if worst is State.FAIL:
        raise typer.Exit(ExitCode.FAILED)


def _print(invocation: Invocation, check: Check) -> None:
    from rich.text import Text

    from harborctl.reports.table import plain

    line = Text(f"{check.state:<5}", style=COLORS[check.state])
    line.append(f" {check.name}: {plain(check.message)}", style="default")
    if check.hint:
        line.append(f"\n      → {plain(check.hint)}", style="dim")
    with invocation.out.capture() as captured:
        invocation.out.print(line, soft_wrap=True)
    invocation.write(captured.get())
