"""Databases without the tables, with older ones, with other settings, and clients whose clock is wrong."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from harborctl.db import migrations
from tests.conftest import Harborctl, execute
from tests.inprocess import Invoke
from tests.stock.conftest import SHOP, Stock, failure, free, pass_time

COMMANDS = [
    ("reserve", "MUG-W", "--order", "A"),
    ("release", "A"),
    ("confirm", "A"),
    ("expire",),
    ("archive", "MUG"),
    ("show",),
    ("show", "A"),
    ("list",),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_tables(engine: Engine, invoke: Invoke, command: tuple[str, ...]) -> None:
    migrations.downgrade(engine, "harbor@base")
    error = failure(invoke("stock", *command, "--json"), 2)
    assert error["code"] == "no_harbor"
    assert error["hint"].startswith("Run `harborctl migrate up harbor` once")
    execute(engine, "DROP SCHEMA harborctl CASCADE")
    assert failure(invoke("stock", *command, "--json"), 2)["code"] == "no_harbor"


@pytest.mark.parametrize("revision", migrations.revisions()["harbor"][:-1])
def test_with_older_ones(engine: Engine, invoke: Invoke, revision: str) -> None:
    migrations.downgrade(engine, revision)
    for command in COMMANDS:
        error = failure(invoke("stock", *command, "--json"), 2)
        assert (error["code"], error["hint"]) == ("old_harbor", "Run `harborctl migrate up harbor` once.")
    assert invoke("migrate", "up", "harbor").code == 0
    assert invoke("stock", "list").code == 0


def test_of_a_newer_program(engine: Engine, invoke: Invoke) -> None:
    execute(engine, "UPDATE harborctl.alembic_version SET version_num = 'harbor_9999' WHERE version_num ~ 'harbor'")
    assert failure(invoke("stock", "list", "--json"), 2)["code"] == "unknown_migration"


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_whatever_isolation_the_database_has(engine: Engine, stock: Stock, isolation: str) -> None:
    execute(engine, f"ALTER DATABASE {engine.url.database} SET default_transaction_isolation = '{isolation}'")
    stock("reserve", "MUG-W", "--order", "A")
    stock("confirm", "A")
    assert free(engine)["MUG-W"] == 99


def test_with_the_rights_that_migrate_grants(engine: Engine, invoke: Invoke) -> None:
    role = f"clerk_of_{engine.url.database}"
    execute(engine, *SHOP, f"CREATE ROLE {role}")
    try:
        assert invoke("migrate", "up", "harbor", "--grant-to", role).code == 0
        url = engine.url.set(drivername="postgresql").update_query_dict({"options": f"-crole={role}"})
        to = ("--url", url.render_as_string(hide_password=False))
        assert invoke("stock", "reserve", "MUG-W", "--order", "A", *to).code == 0
        assert invoke("stock", "confirm", "A", *to).code == 0
        assert invoke("stock", "reserve", "MUG-W", "--order", "B", *to).code == 0
        assert invoke("stock", "release", "B", *to).code == 0
        assert invoke("stock", "list", *to).code == 0
        done = invoke("query", "DELETE FROM harbor.stock_movements", *to)
        assert done.code != 0
    finally:
        execute(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


CLOCK = """
import time
real, ahead = time.time, {ahead}
time.time = lambda: real() + ahead
"""


@pytest.mark.parametrize("hours", [-5, 5])
def test_times_are_the_server_s(engine: Engine, stock: Stock, harborctl: Harborctl, tmp_path: Path, hours: int) -> None:
    """The clock of the host that asks is hours off, and so is its zone."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK.format(ahead=hours * 3600))
    wrong: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    wrong |= {"TZ": "Pacific/Apia", "PGTZ": "America/Lima"}
    done = harborctl("stock", "reserve", "MUG-W", "--order", "A", env=wrong)
    assert (done.code, done.stderr) == (0, "")
    with engine.connect() as connection:
        query = text("SELECT expires_at, created_at, now() AS now FROM harbor.stock_reservations")
        row = connection.execute(query).one()
    assert row.expires_at - row.created_at == timedelta(minutes=15)
    assert timedelta() <= row.now - row.created_at < timedelta(minutes=5)
    assert isinstance(row.now, datetime)
    assert harborctl("stock", "confirm", "A", env=wrong).code == 0
    stock("reserve", "MUG-W", "--order", "B")
    pass_time(engine)
    assert "time of order B was over" in harborctl("stock", "confirm", "B", env=wrong).stderr
