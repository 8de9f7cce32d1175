"""`harborctl db`: the embedded server, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from harborctl.cli.invocation import Invocation, command
from harborctl.errors import LockHeld, UsageError

if TYPE_CHECKING:
    from harborctl.db.embedded import Server


def register(app: typer.Typer) -> None:
    """Add the group `db` to the application."""
    group = typer.Typer(no_args_is_help=True, help="The embedded PostgreSQL, which needs no database of your own.")
    command(group, "start")(start)
    command(group, "stop")(stop)
    command(group, "status")(status)
    command(group, "url")(url)
    command(group, "psql")(psql)
    command(group, "destroy")(destroy)
    app.add_typer(group, name="db")


def start(invocation: Invocation) -> None:
    """Start the server and let it stay until `harborctl db stop`.

    Without this, it runs as long as the commands that use it.
    """
    from harborctl.db.engine import open_embedded

    server = _server(invocation)
    with open_embedded(invocation.connection), server.exclusively():
        server.keep(wanted=True)
    if not invocation.quiet:
        _report(invocation, server)


def stop(invocation: Invocation) -> None:
    """Stop the server, or let it stop by itself when the commands that use it are done."""
    server = _server(invocation)
    with server.exclusively():
        server.keep(wanted=False)
        _require_unused(server)
        server.stop()
    if not invocation.quiet:
        _report(invocation, server)


def status(invocation: Invocation) -> None:
    """Say whether the server runs, and where its data is. Starts nothing."""
    _report(invocation, _server(invocation))


def url(invocation: Invocation) -> None:
    """Print the URL of the embedded database, for psql and other clients."""
    server = _server(invocation)
    state = server.state()
    if invocation.json:
        typer.echo(json.dumps({"url": state.url}))
    else:
        typer.echo(state.url)
    if state.status != "running":
        invocation.note("The server does not run now: harborctl db start makes it stay.")


def psql(
    invocation: Invocation,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- PSQL ARGUMENTS...]", help="Passed on to psql.")
    ] = None,
) -> None:
    """Open psql on the embedded database."""
    import signal

    from harborctl.db.engine import open_embedded
    from harborctl.db.programs import find_psql

    _server(invocation)
    program = find_psql()
    if program is None:
        raise UsageError("there is no psql", hint="Install PostgreSQL's client programs.")
    # The URL says everything; what libpq would take from the environment belongs to another server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    with (
        open_embedded(invocation.connection) as database,
        subprocess.Popen([program, database.url, *(arguments or [])], env=environment) as process,
    ):
        # Ctrl-C is psql's from here on: it cancels a query there, and must not end us before it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    if code:
        raise typer.Exit(code)


def destroy(
    invocation: Invocation,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop the server and delete the embedded database with everything in it."""
    server = _server(invocation)
    if server.data.exists() and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this deletes {server.data}, and nobody is there to ask", hint="Add --yes.")
        if not _confirmed(invocation, f"Delete {server.data} and everything in it?"):
            invocation.note("Nothing was deleted.")
            raise typer.Exit(1)
    with server.exclusively():
        _require_unused(server)
        server.destroy()
    _report(invocation, server)


def _server(invocation: Invocation) -> Server:
    if invocation.connection.url or invocation.connection.name:
        raise UsageError("harborctl db is about the embedded server: --url and --connection name another one")
    from harborctl.db.embedded import Server

    return Server()


def _confirmed(invocation: Invocation, question: str) -> bool:
    # Not typer.confirm(): it writes to stdout too.
    invocation.err.print(f"{question} [y/N] ", end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _require_unused(server: Server) -> None:
    if server.in_use():
        raise LockHeld(
            "the embedded server is in use by another harborctl command",
            hint="It stops by itself when that command is done.",
        )


def _report(invocation: Invocation, server: Server) -> None:
    state = server.state()
    document = {
        "status": state.status,
        "kept": state.kept,
        "url": state.url,
        "data_directory": str(state.directory),
        "version": state.version,
        "pid": state.pid,
    }
    if invocation.json:
        typer.echo(json.dumps(document))
        return
    typer.echo(
        {"running": "The server runs.", "stopped": "The server does not run.", "absent": "There is no data yet."}[
            state.status
        ]
    )
    if state.status != "absent":
        typer.echo(f"url:     {state.url}")
        typer.echo(f"data:    {state.directory}")
        typer.echo(f"version: {state.version}")
    if state.kept:
        typer.echo("It stays until harborctl db stop.")
