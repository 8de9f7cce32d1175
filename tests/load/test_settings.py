"""Whether rows differ does not depend on settings that say how values are printed; how fields are read does."""

from __future__ import annotations

from datetime import date
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.model import OnDuplicate
from tests.load.direct import LoadRows, counts, refusal, rows_loader

__all__ = ["rows_loader"]

Database = psycopg.Connection[Any]

# Under these different values look the same (floats), or look otherwise than usual.
ODD = {
    "extra_float_digits": "-10",
    "DateStyle": "SQL, DMY",
    "IntervalStyle": "sql_standard",
    "TimeZone": "America/New_York",
    "bytea_output": "escape",
}
COLUMNS = "id integer PRIMARY KEY, p point, f float8[], i interval, r pair, j json, n numeric, a regproc, d date"
# A row, and for each column a value that differs from its own.
OLD = {
    "p": "(1.00000001,2)", "f": "{0.1,1.00000001}", "i": "1 day", "r": '(1.00000001,"2026-03-04 00:00")', "j": "1.0",
    "n": "1.0", "a": "pg_catalog.now", "d": "03/04/2026",
}  # fmt: skip
NEW = {
    "p": "(1.00000002,2)", "f": "{0.1,1.00000002}", "i": "24:00", "r": '(1.00000002,"2026-03-04 00:00")', "j": "1.00",
    "n": "1.00", "a": "pg_catalog.clock_timestamp", "d": "04/04/2026",
}  # fmt: skip


@pytest.fixture
def odd(database: Database) -> Database:
    """The test's database, with odd settings for every session from here on."""
    database.execute(f"CREATE TYPE pair AS (x float8, t timestamptz); CREATE TABLE t ({COLUMNS})")
    for name, value in ODD.items():
        database.execute(f"ALTER DATABASE {database.info.dbname} SET {name} = '{value}'")
    return database


def test_what_differs_is_written_under_any_settings(odd: Database, load_rows: LoadRows, writer: str) -> None:
    same = {"id": 1, **OLD}
    load_rows([same], "t", "append", writer=writer)
    assert odd.execute("SELECT d FROM t").fetchone() == (date(2026, 4, 3),)
    before = odd.execute("SELECT xmin::text, ctid::text FROM t").fetchone()
    assert counts(load_rows([same], "t", "upsert", writer=writer)) == {"unchanged": 1}
    assert odd.execute("SELECT xmin::text, ctid::text FROM t").fetchone() == before
    for name, value in NEW.items():
        same[name] = value
        preview = load_rows([same], "t", "upsert", writer=writer, dry_run=True)
        (change,) = preview.changes
        assert list(change.columns) == [name]
        assert change.columns[name].old != change.columns[name].new
        assert counts(load_rows([same], "t", "upsert", writer=writer)) == {"updated": 1}, name


def test_a_trigger_sees_the_settings_of_the_user(odd: Database, load_rows: LoadRows, writer: str) -> None:
    odd.execute("""
        CREATE TABLE seen (v text);
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO public.seen SELECT string_agg(current_setting(name), ',' ORDER BY name)
            FROM unnest('{extra_float_digits,datestyle,intervalstyle,timezone,bytea_output}'::text[]) AS name;
            RETURN NEW; END $$;
        CREATE TRIGGER note AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()
    """)
    load_rows([{"id": 1, "p": "(1,2)"}], "t", "upsert", writer=writer)
    load_rows([{"id": 1, "p": "(2,1)"}], "t", "sync", writer=writer)
    assert odd.execute("SELECT DISTINCT v FROM seen").fetchall() == [
        ("escape,SQL, DMY,-10,sql_standard,America/New_York",)
    ]


def test_keys_that_are_equal_though_they_are_printed_otherwise(
    database: Database, engine: sqlalchemy.Engine, load_rows: LoadRows, writer: str
) -> None:
    database.execute(f"ALTER DATABASE {database.info.dbname} SET extra_float_digits = -10")
    database.execute("CREATE TABLE n (k numeric PRIMARY KEY); CREATE TABLE f (k float8 PRIMARY KEY)")
    error = refusal(
        lambda: load_rows("k\n1.0\n2\n1.00\n", "n", "upsert", writer=writer, on_duplicate=OnDuplicate.ERROR)
    )
    assert (error.code, error.location.line, error.value) == ("23505", 4, "1.00")
    feed = "k\n1.00000001\n2\n1.00000002\n2\n"
    error = refusal(lambda: load_rows(feed, "f", "upsert", writer=writer, on_duplicate=OnDuplicate.ERROR))
    assert (error.code, error.location.line, error.value) == ("23505", 5, "2")


def test_an_expression_is_known_as_a_key_however_the_server_quotes(database: Database, load_rows: LoadRows) -> None:
    database.execute(f"ALTER DATABASE {database.info.dbname} SET quote_all_identifiers = on")
    database.execute("CREATE TABLE t (k text, v text); CREATE UNIQUE INDEX ON t (lower(k))")
    for feed, account in (("k,v\nA,x\n", "inserted"), ("k,v\na,x\n", "updated")):
        assert counts(load_rows(feed, "t", "upsert", key=("lower(k)",))) == {account: 1}
