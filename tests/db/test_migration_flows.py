"""From each older ledger with rows in it to the newest and back, by the program and by scripts, as pg_dump sees it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from harborctl.db import migrations
from tests.conftest import engine_of, url_of
from tests.db.dumps import dumped

if TYPE_CHECKING:
    from collections.abc import Iterator

LEDGER = migrations.revisions()["ledger"]
HARBOR = migrations.revisions()["harbor"]
FOREIGN = (
    "CREATE TABLE public.alembic_version (version_num varchar(32)); INSERT INTO public.alembic_version VALUES ('ae')"
)
ROWS = """
    DELETE FROM harborctl.loads;
    INSERT INTO harborctl.loads (id, target_table, mode, writer, status, application_version)
    VALUES (gen_random_uuid(), 't', 'append', 'copy', 'loaded', '1');
    INSERT INTO harborctl.files (load_id, position, path) SELECT id, 1, 'a.csv' FROM harborctl.loads
"""


@pytest.fixture(params=["UTF8", "LATIN1"])
def url(server_url: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database in this encoding, in which another program has migrations of its own."""
    name = sql.Identifier(f"harborctl_flow_{os.getpid()}")
    create = sql.SQL(
        "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(create.format(name, request.param))
        try:
            made = url_of(server_url, f"harborctl_flow_{os.getpid()}")
            apply(made, FOREIGN)
            yield made
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def apply(url: str, script: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(script.encode())


def shape(url: str) -> list[str]:
    return [line for line in dumped(url, "--schema-only") if line and not line.startswith("--")]


def test_there_and_back(url: str) -> None:
    engine = engine_of(url)
    migrations.upgrade(engine)
    newest = shape(url)
    assert sum(line.startswith("CREATE TABLE harbor") for line in newest) >= 10
    for start in reversed(LEDGER):
        _go_back(engine, start)
        apply(url, ROWS)
        older = shape(url)
        migrations.upgrade(engine)
        assert shape(url) == newest
        _go_back(engine, start)
        assert shape(url) == older
        if start != LEDGER[-1]:
            apply(url, migrations.offline_sql(start=start))
            apply(url, migrations.offline_sql("harbor"))
            assert shape(url) == newest
            apply(url, migrations.offline_sql("harbor", start=HARBOR[-1], to="base"))
            apply(url, migrations.offline_sql(start=LEDGER[-1], to=start))
            assert shape(url) == older
        migrations.upgrade(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM harborctl.loads JOIN harborctl.files ON load_id = id")) == 1
        assert connection.scalar(text("SELECT version_num FROM public.alembic_version")) == "ae"
    engine.dispose()


def _go_back(engine: Engine, start: str) -> None:
    migrations.downgrade(engine, "harbor@base")
    migrations.downgrade(engine, start)
