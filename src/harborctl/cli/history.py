"""`harborctl history`: what the ledger says of past loads."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.errors import UsageError
from harborctl.nearest import nearest_or_all
from harborctl.plain_text import as_json, said

EXAMPLES = """
[bold]Examples[/bold]

  harborctl history --table shop.orders --since 7d

  harborctl history --status failed --since 2026-03-01 --json

  harborctl history 1b9d6bcd
"""

WIDE = 1000

_SPANS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    command(app, "history", epilog=EXAMPLES)(history)


def history(
    invocation: Invocation,
    *,
    load_id: Annotated[str | None, typer.Argument(metavar="[LOAD_ID]", help="One load in full.")] = None,
    table: Annotated[
        str | None, typer.Option("--table", "-t", metavar="[SCHEMA.]TABLE", help="Only loads into this table.")
    ] = None,
    status: Annotated[str | None, typer.Option("--status", metavar="STATUS", help="Only loads of this status.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="WHEN", help="Only newer ones: 2026-03-01, or 12h, 7d, 2w.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Not more than N.")] = 20,
) -> None:
    """List past loads, newest first, or show one with its files, chunks and error.

    A load that was killed is `lost`: the ledger says that it runs, but its database session is gone.
    """
    from harborctl.db.engine import open_database
    from harborctl.load.ledger.history import STATUSES, one_load, past_loads

    if status is not None and status not in STATUSES:
        raise UsageError(f"{status} is no status of a load", hint=nearest_or_all(status, STATUSES))
    begin = _since(since) if since else None
    with open_database(invocation.connection) as database:
        if load_id is not None:
            _print_one(invocation, one_load(database.engine, load_id))
            return
        loads = past_loads(database.engine, table=table, status=status, since=begin, limit=limit)
    if invocation.json:
        invocation.write(as_json(loads, default=str) + "\n")
    else:
        _print_list(invocation, loads)


def _since(given: str) -> datetime:
    if match := re.fullmatch(r"(\d{1,6})([mhdw])", given):
        return datetime.now().astimezone() - timedelta(**{_SPANS[match[2]]: int(match[1])})
    try:
        return datetime.fromisoformat(given).astimezone()
    except ValueError as error:
        raise UsageError(f"--since {given} is no time", hint="Write 2026-03-01, or 12h, 7d, 2w.") from error


def _print_list(invocation: Invocation, loads: list[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("load", "started", "table", "mode", "status", "read", "inserted", "updated", "rejected", "s", "error")
    for load in loads:
        counts = [f"{load[name]:,}" for name in ("rows_read", "inserted", "updated", "rejected")]
        seconds = "" if load["seconds"] is None else f"{load['seconds']:.1f}"
        started = f"{load['started_at'].astimezone():%Y-%m-%d %H:%M:%S}"
        cells = [load["load_id"][:8], started, load["table"], load["mode"], load["status"], *counts, seconds]
        table.add_row(*(Text(said(cell)) for cell in (*cells, load["error"] or "")))
    if not invocation.out.is_terminal:
        invocation.out.width = WIDE  # whoever filters wants a load in one line
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    invocation.write(rendered.get())


def _print_one(invocation: Invocation, load: dict[str, Any]) -> None:
    if invocation.json:
        invocation.write(as_json(load) + "\n")
        return
    lines = []
    for name, value in load.items():
        if isinstance(value, list):
            lines += [f"{name}:", *(f"  {as_json(item)}" for item in value)] if value else []
        elif value not in (None, {}, 0):
            lines.append(f"{name}: {said(value) if isinstance(value, str) else as_json(value)}")
    invocation.write("\n".join(lines) + "\n")
