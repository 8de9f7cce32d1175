"""What somebody who may create in `public` puts there is never called by us, whoever we are.

Beside every function and operator of the system's that takes texts, names or numbers stands one in `public` that takes
`varchar`, `text` or the like, and so fits better where the call does not fit exactly. Each of them fails when it is
called. https://wiki.postgresql.org/wiki/A_Guide_to_CVE-2018-1058
"""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

PLANT = r"""
CREATE FUNCTION public.trojan() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a trojan was called'; END $$;
DO $$
DECLARE one record; kinds text[]; variant text[]; body text;
BEGIN
    FOR one IN
        SELECT proname, proargtypes::oid[] AS taken, prorettype, proretset
        FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND pronargs BETWEEN 1 AND 4
          AND prorettype <> ALL ('{internal,trigger,event_trigger,anyelement,anyarray,cstring}'::regtype[])
          AND proargtypes::oid[] && '{text,name,oid,regclass,integer,bigint,smallint}'::regtype[]::oid[]
          AND NOT proargtypes::oid[] && '{internal,cstring}'::regtype[]::oid[]
    LOOP
        FOREACH body IN ARRAY '{varchar,text,name}'::text[] LOOP
            SELECT array_agg(CASE WHEN kind IN ('text'::regtype, 'name'::regtype, 'regclass'::regtype) THEN body
                                  WHEN kind IN ('oid'::regtype, 'bigint'::regtype, 'smallint'::regtype) THEN 'integer'
                                  ELSE format_type(kind, NULL) END ORDER BY place)
            INTO variant FROM unnest(one.taken) WITH ORDINALITY AS part (kind, place);
            BEGIN
                EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s%s LANGUAGE plpgsql AS
                                ''BEGIN RAISE EXCEPTION ''''a trojan was called: %s''''; END''',
                               one.proname, array_to_string(variant, ', '), CASE WHEN one.proretset THEN 'SETOF ' END,
                               CASE WHEN one.prorettype IN ('record'::regtype, 'void'::regtype) THEN 'integer'
                                    ELSE one.prorettype::regtype::text END, one.proname);
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END LOOP;
    FOR one IN SELECT unnest('{=,<>,<,<=,>,>=,||,~}'::text[]) AS oprname LOOP
        FOREACH body IN ARRAY '{varchar varchar,text varchar,varchar text,name varchar,varchar name,name text,
                                "\"char\" text",text \"char\",oid integer,integer oid,oid bigint,bigint oid,
                                regclass oid,oid regclass,regtype oid,smallint oid,oid smallint}'::text[] LOOP
            kinds := string_to_array(body, ' ');
            BEGIN
                EXECUTE format('CREATE FUNCTION public.trojan_operator(%1$s, %2$s) RETURNS boolean LANGUAGE plpgsql AS
                                ''BEGIN RAISE EXCEPTION ''''an operator of a trojan was called''''; END''',
                               kinds[1], kinds[2]);
            EXCEPTION WHEN duplicate_function THEN NULL;
            END;
            BEGIN
                EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s,
                                                           FUNCTION = public.trojan_operator)',
                               one.oprname, kinds[1], kinds[2]);
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
        END LOOP;
    END LOOP;
END $$;
"""

TABLES = """
CREATE TABLE parents (id varchar PRIMARY KEY);
INSERT INTO parents VALUES ('p');
CREATE TABLE items (
    id integer PRIMARY KEY, code varchar UNIQUE, price numeric CHECK (price >= 0), parent varchar REFERENCES parents,
    tags varchar[], seen timestamptz, made timestamptz DEFAULT now()
);
CREATE TABLE parts (id integer, code varchar, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
CREATE TABLE log (id integer, code varchar);
"""

GOOD = "id,code,price,parent,seen\n" + "".join(f"{n},c{n},{n}.50,p,2026-01-01\n" for n in range(1, 40))
BAD = GOOD + "40,c40,-1,p,\n41,c1,1,p,\n42,c42,1,nobody,\n43,c43,x,p,\n44,,,,never\n"


@pytest.fixture
def planted(database_url: str) -> str:
    """A database with tables, and with trojans on everybody's search path."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute(PLANT)
        [[count]] = connection.execute(
            "SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        ).fetchall()
        assert count > 1000
        with pytest.raises(psycopg.errors.RaiseException):  # they do what they are there for
            connection.execute("SELECT set_config('a.b'::varchar, 'c'::varchar, true)")
        with pytest.raises(psycopg.errors.RaiseException):
            connection.execute("SELECT code = 'x'::varchar FROM (SELECT 'y'::varchar AS code) AS one")
    return database_url


def test_no_command_calls_what_stands_in_public(planted: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(GOOD)
    (tmp_path / "bad.csv").write_text(BAD)
    (tmp_path / "few.csv").write_text(GOOD[: GOOD.index("30,")])
    for writer in ("copy", "values"):
        (tmp_path / f"{writer}.csv").write_text(f"id,code\n1,{writer}\n")
    (tmp_path / "parts.csv").write_text("id,code\n1,a\n2,b\n")
    (tmp_path / "mine.sql").write_text("-- title: Mine\nSELECT id, price FROM items WHERE id = 1\n")
    (tmp_path / "harborctl.toml").write_text(
        '[jobs.j]\n[[jobs.j.loads]]\nsource = "parts.csv"\ntable = "parts"\nmode = "upsert"\n'
    )
    for writer in ("copy", "values"):
        load = ("load", "good.csv", "-t", "items", "--json", "--writer", writer)
        reject = ("load", "bad.csv", "-t", "items", "--json", "--writer", writer, "--on-error", "reject", "--force")
        for code, *arguments in (
            (0, *load, "--mode", "replace"),
            (0, "load", f"{writer}.csv", "-t", "log", "--json", "--writer", writer),  # two looks at the ledger
            (0, "load", f"{writer}.csv", "-t", "log", "--json", "--dry-run"),
            (0, *load, "--mode", "upsert"),
            (0, *load, "--mode", "upsert", "--key", "code", "--touch", "made", "--newest-by", "seen"),
            (0, *load, "--mode", "ignore", "--check", "price > 0"),
            (1, "load", "bad.csv", "-t", "items", "--json", "--writer", writer),
            (4, *reject, "--mode", "replace"),
            (0, *reject, "--mode", "upsert", "--key", "code", "--dry-run"),
            (4, *reject, "--mode", "upsert", "--commit-every", "10"),
            (0, "load", "few.csv", "-t", "items", "--mode", "sync", "--max-delete", "100%", "--json"),
            (0, "load", "parts.csv", "-t", "parts", "--mode", "sync", "--max-delete", "100%", "--json"),
        ):
            done = invoke(*arguments)
            assert "trojan" not in done.stdout + done.stderr, arguments
            assert done.code == code, (arguments, done)
    for command in (
        ("run", "j"),
        ("history",),
        ("count", "items", "--json"),
        ("count", "items", "parts", "--exact"),
        ("count", "public.*"),
        ("count", "items", "--sample", "50"),
        ("count", "items", "--where", "id > 3"),
        ("tables",),
        ("tables", "items"),
        ("doctor",),
        ("report",),
        ("report", "mine.sql", "--format", "csv"),
        ("report", "low_stock"),
        ("report", "table_sizes", "--format", "json"),
        ("report", "load_history"),
        ("migrate", "current"),
        ("migrate", "history"),
        ("migrate", "down", "harbor", "--yes"),
        ("migrate", "up"),
    ):
        done = invoke(*command)
        assert "trojan" not in done.stdout + done.stderr, command
        assert done.code == 0, (command, done)


def test_the_users_own_sql_is_on_the_users_path(database_url: str, invoke: Invoke, tmp_path: Path) -> None:
    # What a table does by itself, and what the user wrote, finds what it would find in psql.
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA mine; CREATE TABLE mine.t (id integer PRIMARY KEY, v text); CREATE TABLE mine.log (v text);"
            "CREATE FUNCTION mine.noted() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO log VALUES (NEW.v); RETURN NEW; END $$;"
            "CREATE FUNCTION mine.good(text) RETURNS boolean LANGUAGE sql AS $$ SELECT $1 <> 'bad' $$;"
            "CREATE TRIGGER noted AFTER INSERT OR UPDATE ON mine.t FOR EACH ROW EXECUTE FUNCTION mine.noted();"
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON mine.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            " EXECUTE FUNCTION mine.noted();"
            f'ALTER DATABASE "{connection.info.dbname}" SET search_path = mine'
        )
    (tmp_path / "t.csv").write_text("id,v\n1,a\n2,b\n")
    (tmp_path / "u.csv").write_text("id,v\n1,bad\n2,x\n")
    (tmp_path / "r.sql").write_text("-- title: R\nSELECT count(*) AS n FROM log\n")
    for writer in ("copy", "values"):
        assert invoke("load", "t.csv", "-t", "t", "--mode", "replace", "--again", "--writer", writer).code == 0
    checked = invoke("load", "u.csv", "-t", "t", "--mode", "upsert", "--check", "good(v)", "--on-error", "reject")
    assert checked.code == 4, checked
    assert json.loads(invoke("report", "r.sql", "--format", "json").stdout) == [{"n": 9}]
    assert json.loads(invoke("count", "t", "--where", "good(v)", "--exact", "--json").stdout)[0]["rows"] == 2
