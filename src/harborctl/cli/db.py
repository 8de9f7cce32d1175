"""`harborctl db`: the embedded server, by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harborctl.cli.help import Group
from harborctl.cli.invocation import Invocation, command
from harborctl.errors import LockHeld, UsageError

if TYPE_CHECKING:
    from harborctl.embedded.server import Server


YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Add the group `db` to the application."""
    about = "The embedded PostgreSQL, which needs no database of your own."
    group = typer.Typer(cls=Group, no_args_is_help=True, help=about)
    command(group, "start")(start)
    command(group, "stop")(stop)
    command(group, "status")(status)
    command(group, "url")(url)
    command(group, "psql")(psql)
    command(group, "backup")(backup)
    command(group, "restore")(restore)
    command(group, "upgrade")(upgrade)
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
    from harborctl.embedded.programs import find_psql

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


def backup(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, for pg_restore.", dir_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
) -> None:
    """Write the embedded database to a file, whole or not at all.

    It is pg_dump's custom format. Roles, and settings of the server, are not in it.
    """
    from harborctl.db.backup import back_up
    from harborctl.db.engine import open_embedded

    server = _server(invocation)
    _require_cluster(server)
    if file.is_file() and not force:
        raise UsageError(f"{file} is there already", code="file_exists", hint="Add --force to overwrite it.")
    with open_embedded(invocation.connection, migrate=False):
        back_up(server, file)
    invocation.note(f"The database is in {file}.")


def restore(
    invocation: Invocation,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of harborctl db backup.")],
    yes: YesOption = False,
) -> None:
    """Put a backup in the place of the embedded database, whole or not at all."""
    from harborctl.db.backup import require_backup
    from harborctl.db.backup import restore as put_back

    server = _server(invocation)
    require_backup(server, file)
    if server.cluster_version() is not None:
        _require_consent(invocation, f"replaces everything in {server.data}", "Nothing was restored.", yes=yes)
    with server.exclusively():
        _require_unused(server)
        server.start()
        try:
            put_back(server, file)
        finally:
            if not server.kept:
                server.stop()
    invocation.note(f"The database is what it was in {file}.")


def upgrade(invocation: Invocation) -> None:
    """Move the embedded database to PostgreSQL 18, or to the version that PGSERVER_POSTGRES_VERSION names.

    Roles, databases and all rows go over, and are compared; settings of postgresql.conf do not. The old data stays
    beside the new: delete it when you no longer want it. It needs as much room again as the data takes.
    """
    from harborctl.db.backup import upgrade as move
    from harborctl.embedded.programs import wanted_version

    server = _server(invocation)
    found, wanted = _require_cluster(server), wanted_version()
    if int(found) > int(wanted):
        raise UsageError(f"the embedded database is of PostgreSQL {found}, and there is no way back to {wanted}")
    if found != wanted:
        with server.exclusively():
            _require_unused(server)
            old = move(server, wanted)
            if server.kept:
                server.start()
        invocation.note(f"The old data of PostgreSQL {found} is in {old}: delete it when you no longer want it.")
    _report(invocation, server)


def destroy(invocation: Invocation, yes: YesOption = False) -> None:
    """Stop the server and delete the embedded database with everything in it."""
    server = _server(invocation)
    server.require_ours()
    if server.data.exists():
        _require_consent(invocation, f"deletes {server.data} and everything in it", "Nothing was deleted.", yes=yes)
    with server.exclusively():
        _require_unused(server)
        server.destroy()
    _report(invocation, server)


def _server(invocation: Invocation) -> Server:
    if invocation.connection.url or invocation.connection.name:
        raise UsageError("harborctl db is about the embedded server: --url and --connection name another one")
    from harborctl.embedded.server import Server

    return Server()


def _require_consent(invocation: Invocation, what: str, otherwise: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"this {what}, and nobody is there to ask", hint="Add --yes.")
    # Not typer.confirm(): it writes to stdout too.
    invocation.err.print(f"This {what}. Go on? [y/N] ", end="", soft_wrap=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        invocation.note(otherwise)
        raise typer.Exit(1)


def _require_cluster(server: Server) -> str:
    server.require_ours()
    version = server.cluster_version()
    if version is None:
        raise UsageError(f"there is no embedded database in {server.home} yet", code="no_data")
    return version


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
