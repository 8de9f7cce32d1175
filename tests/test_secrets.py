"""One password in every place that takes one, and in those that do not: it shows up nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import psycopg
import sqlalchemy

from tests.inprocess import invoke
from tests.load.conftest import database, wait_for

__all__ = ["database", "invoke"]

SECRET = "Pa55w0rd"  # noqa: S105  # of nobody


def with_secret(url: str) -> str:
    """The URL of a database, with the password; the tests' server trusts everybody."""
    return sqlalchemy.make_url(url).set(password=SECRET).render_as_string(hide_password=False)


def test_no_process_title_shows_it(database: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    database.execute("CREATE TABLE items (id integer)")
    database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN new; END $$"
    )
    database.execute("CREATE TRIGGER wait BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION wait()")
    (tmp_path / "items.csv").write_text("id\n" + "1\n" * 50_000)
    arguments = ["load", "items.csv", "--jobs", "2", f"--url={with_secret(database_url)}"]
    command = [sys.executable, "-m", "harborctl", *arguments]
    with (
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process,
        psycopg.connect(database_url) as blocker,
    ):
        blocker.execute("SELECT pg_advisory_xact_lock(1)")
        wait_for(database, "SELECT count(*) FROM pg_locks WHERE NOT granted")
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        titles = [" ".join(member.cmdline()) for member in family]
        sessions = database.execute("SELECT to_json(a)::text FROM pg_stat_activity AS a").fetchall()
        blocker.rollback()
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert len(titles) > 1
    assert SECRET not in str([titles, sessions, out])
    assert titles[0].startswith("harborctl load items.csv --jobs 2 --url=postgresql://")
    assert ":***@" in titles[0]
