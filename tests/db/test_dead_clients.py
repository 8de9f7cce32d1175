"""A client that is gone: what the server does for it ends soon."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import psycopg
import pytest
import sqlalchemy

from tests.conftest import ours
from tests.load.conftest import wait_for

RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleepers%' AND pid <> pg_backend_pid()"


def test_a_statement_ends_with_its_client(database_url: str) -> None:
    query = [sys.executable, "-m", "harborctl", "count", "sleepers", "--exact", "--url", database_url]
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE VIEW sleepers AS SELECT 1 FROM pg_sleep(50)")
        process = subprocess.Popen(query, stdout=subprocess.DEVNULL)
        wait_for(database, RUNNING + " AND state = 'active'")
        process.kill()
        process.wait()
        start = time.monotonic()
        wait_for(database, RUNNING.replace("count(*)", "(count(*) = 0)::int"))
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("own", ["0", "7s"])
def test_what_an_administrator_has_set_stays(engine: sqlalchemy.Engine, own: str) -> None:
    with engine.begin() as connection:
        name = connection.execute(sqlalchemy.text("SELECT current_database()")).scalar_one()
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET client_connection_check_interval = '{own}'")
    with ours(engine).begin() as connection:
        seen = connection.execute(sqlalchemy.text("SHOW client_connection_check_interval")).scalar_one()
    assert seen == ("2s" if own == "0" else own)


def test_a_signal_that_is_ignored_stays_so(database_url: str) -> None:
    """As nohup has it."""
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE VIEW sleepers AS SELECT 1 FROM pg_sleep(1)")
        process = subprocess.Popen(
            ["nohup", sys.executable, "-m", "harborctl", "count", "sleepers", "--exact", "--url", database_url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(database, RUNNING + " AND state = 'active'")
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
