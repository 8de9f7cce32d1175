"""Migrations where nothing can be written, and by a role that owns nothing but its schemas."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from harborctl.db import migrations
from harborctl.embedded.programs import find_programs
from harborctl.embedded.server import Server
from tests.conftest import Run, engine_of, execute, made_database
from tests.db.dumps import dumped
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

LEDGER = migrations.revisions()["ledger"]
READING = [
    ["current"],
    ["history"],
    ["check"],
    ["sql", "ledger", "--from", LEDGER[0]],
    ["sql", "ledger", "--from", LEDGER[-1], "--to", LEDGER[0]],
]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """URLs of a primary, whose ledger is one revision old, and of its standby, made by pg_basebackup."""
    home = Path(tempfile.mkdtemp(prefix="harborctl-pair-"))
    home.chmod(0o755)  # the server's own user goes through it to the primary's socket
    primary, standby = Server(home / "primary"), Server(home / "standby")
    programs = find_programs()
    with primary.leased():
        engine = engine_of(primary.url)
        migrations.upgrade(engine)
        migrations.downgrade(engine, "harbor@base")
        migrations.downgrade(engine, LEDGER[-2])
        engine.dispose()
        standby.data.mkdir(mode=0o700, parents=True)
        programs.own(standby.data)
        copy = [programs.path("pg_basebackup"), "-D", programs.name_of(standby.data), "-R", "-c", "fast", "--no-sync"]
        subprocess.run(
            [*copy, "-d", primary.url], cwd=standby.data, check=True, capture_output=True, **programs.settings()
        )
        with standby.leased():
            yield primary.url, standby.url
    shutil.rmtree(home)


def shape(url: str, *options: str) -> list[str]:
    return [line for line in dumped(url, "--schema-only", *options) if line and not line.startswith("--")]


def caught_up(primary: str, standby: str) -> None:
    """Wait until the standby has all that the primary has done."""
    with psycopg.connect(primary) as writes, psycopg.connect(standby, autocommit=True) as reads:
        [position] = writes.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or [None]
        for _ in range(1000):
            if reads.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone() == (True,):
                return
            time.sleep(0.01)
    raise AssertionError("the standby does not catch up")


def test_a_standby_tells_what_its_primary_tells_and_changes_nothing(pair: tuple[str, str], invoke: Invoke) -> None:
    primary, standby = pair
    caught_up(primary, standby)
    before = shape(standby)
    for command in READING:
        first, second = [invoke("migrate", *command, "--url", url) for url in pair]
        assert (first.code, first.stdout) == (second.code, second.stdout), command
    assert LEDGER[-1] in invoke("migrate", "current", "--url", standby).stdout
    for command in (["up"], ["up", "ledger"], ["down", "ledger", "--yes"]):
        refused = invoke("migrate", *command, "--url", standby)
        assert (refused.code, refused.stdout) == (1, ""), refused
        assert "read-only" in refused.stderr
        assert "name the primary, not a standby" in refused.stderr
    doctor = invoke("doctor", "--url", standby)
    assert doctor.code == 1
    assert "fail  writes: this server is a standby, which takes no writes" in doctor.stdout
    assert shape(standby) == shape(primary) == before
    # What the primary does then is there: by the program, and by the script for administrators.
    assert invoke("migrate", "up", "--url", primary).code == 0
    caught_up(primary, standby)
    assert shape(standby) == shape(primary)
    assert invoke("migrate", "check", "--url", standby).code == 0


def test_an_owner_of_the_schemas_needs_no_more(server_url: str, invoke: Invoke) -> None:
    with made_database(server_url, "harborctl_least_owner", template="template0") as url:
        admin = engine_of(url)
        role = "harborctl_least"
        execute(admin, f"CREATE ROLE {role} NOLOGIN")
        address = make_url(url).update_query_dict({"options": f"-crole={role}"})
        owner = address.render_as_string(hide_password=False)

        def migrate(*arguments: str) -> Run:
            return invoke("migrate", *arguments, "--url", owner)

        try:
            refused = migrate("up")
            assert refused.code == 1
            assert "CREATE SCHEMA" in refused.stderr
            assert shape(url) == shape(url, "--no-owner")
            execute(admin, *(f"CREATE SCHEMA {schema} AUTHORIZATION {role}" for schema in ("harborctl", "harbor")))
            assert migrate("up").code == 0
            with made_database(server_url, "harborctl_least_other", template="template0") as other:
                engine = engine_of(other)
                migrations.upgrade(engine)
                engine.dispose()
                assert shape(url, "--no-owner") == shape(other, "--no-owner")
            newest = shape(url)
            assert f"ALTER TABLE harborctl.loads OWNER TO {role};" in newest
            assert migrate("check").code == 0
            assert migrate("down", "ledger", "--yes").code == 0
            assert migrate("up").code == 0
            assert shape(url) == newest
        finally:
            execute(admin, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
            admin.dispose()
