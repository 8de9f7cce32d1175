"""Databases of these tests are in UTC, whatever the server's own zone is."""

from __future__ import annotations

import pytest
from psycopg import sql
from sqlalchemy import Engine


@pytest.fixture(autouse=True)
def utc(request: pytest.FixtureRequest) -> None:
    """Only where there is a database; tests without one start none."""
    if "engine" not in request.fixturenames:
        return
    engine: Engine = request.getfixturevalue("engine")
    with engine.begin() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        name = sql.Identifier(str(engine.url.database))
        driver.execute(sql.SQL("ALTER DATABASE {} SET TimeZone = 'UTC'").format(name))
    engine.dispose()
