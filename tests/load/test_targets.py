"""Every kind of table: loading works, or the message says why not."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from harborctl.model import Limit
from tests.conftest import engine_of, url_of
from tests.load.conftest import wait_for
from tests.load.direct import LoadRows, counts, load_file, refusal, rows_loader

__all__ = ["rows_loader"]

Database = psycopg.Connection[Any]
ALL = Limit(percent=100)
MODES = ("append", "ignore", "upsert", "sync", "replace")


def rows(database: Database, query: str) -> list[Any]:
    return database.execute(query).fetchall()


def engine_as(url: str, role: str) -> sqlalchemy.Engine:
    address = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    return sqlalchemy.create_engine(address.update_query_dict({"options": f"-c role={role}"}))


def load_in_every_mode(load_rows: LoadRows, database: Database, table: str, writer: str) -> list[dict[str, int]]:
    """Into `table (id, v)`: a first load, then one of a new, a changed and an equal row in each mode."""
    accounts = []
    for mode in MODES:
        database.execute(f"DELETE FROM {table}")
        if mode != "append":
            load_rows("id,v\n1,same\n2,old\n3,gone\n", table, "append", writer=writer)
        settings = {"max_delete": ALL} if mode == "sync" else {}
        accounts.append(counts(load_rows("id,v\n1,same\n2,new\n150,add\n", table, mode, writer=writer, **settings)))
    return accounts


EVERY_MODE = [
    {"inserted": 3},
    {"inserted": 1, "skipped": 2},
    {"inserted": 1, "updated": 1, "unchanged": 1},
    {"inserted": 1, "updated": 1, "unchanged": 1, "deleted": 1},
    {"inserted": 3, "deleted": 3},
]


@pytest.mark.parametrize(
    "definition",
    [
        "CREATE TABLE t (id integer PRIMARY KEY, v text)",
        "CREATE UNLOGGED TABLE t (id integer PRIMARY KEY, v text)",
        "CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, d integer DEFAULT 7 NOT NULL)",
        "CREATE TABLE t (g integer GENERATED ALWAYS AS (length(v)) STORED, v text, id integer PRIMARY KEY)",
        """
        CREATE TABLE t (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
        CREATE TABLE low (v text, id integer NOT NULL);
        ALTER TABLE t ATTACH PARTITION low FOR VALUES FROM (0) TO (99);
        CREATE TABLE high PARTITION OF t FOR VALUES FROM (99) TO (200)
        """,
        "CREATE TABLE base (id integer PRIMARY KEY); CREATE TABLE t (v text, PRIMARY KEY (id)) INHERITS (base)",
        "CREATE DOMAIN word AS text CHECK (value <> 'bad') NOT NULL; CREATE TABLE t (id integer PRIMARY KEY, v word)",
        "CREATE TABLE t (id integer PRIMARY KEY, v text UNIQUE DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE t (x integer, id integer PRIMARY KEY, v text); ALTER TABLE t DROP COLUMN x",
    ],
)
def test_kinds_of_tables(database: Database, load_rows: LoadRows, writer: str, definition: str) -> None:
    database.execute(definition)
    assert load_in_every_mode(load_rows, database, "t", writer) == EVERY_MODE
    assert rows(database, "SELECT id, v FROM t ORDER BY id") == [(1, "same"), (2, "new"), (150, "add")]


def test_children_are_left_alone(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE TABLE child () INHERITS (t);"
        "INSERT INTO child VALUES (1, 'child')"
    )
    for mode in MODES[1:]:
        settings = {"max_delete": ALL} if mode == "sync" else {}
        load_rows("id,v\n1,x\n", "t", mode, writer=writer, **settings)
    load_rows("id,v\n1,y\n", "t", "replace", writer=writer, no_block=True)
    assert rows(database, "SELECT tableoid::regclass::text, id, v FROM t ORDER BY 1") == [
        ("child", 1, "child"),
        ("t", 1, "y"),
    ]


def test_odd_names(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        'CREATE SCHEMA "S ""%"; CREATE TABLE "S ""%"."Größe (id, v)" (id integer GENERATED ALWAYS AS IDENTITY'
        ' PRIMARY KEY, v text, "a:b %s" text, "%(x)s" text, "harborctl_row" text, "is_new" text, "current" text)'
    )
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text); CREATE SCHEMA two; CREATE TABLE two.t (LIKE t)")
    name = '"S ""%"."Größe (id, v)"'
    feed = 'id,v,"a:b %s",%(x)s,harborctl_row,is_new,current\n1,x,:y,%z,1,2,3\n'
    for mode in MODES:
        if mode == "append":
            assert counts(load_rows(feed, name, mode, writer=writer)) == {"inserted": 1}
        else:
            result = load_rows(feed, name, mode, writer=writer)
            assert result.inserted + result.unchanged + result.skipped == 1
    changed = load_rows(feed.replace("%z", "%%z"), name, "upsert", writer=writer, dry_run=True)
    assert changed.changes[0].columns["%(x)s"].new == "%%z"
    assert rows(database, f"SELECT * FROM {name}") == [(1, "x", ":y", "%z", "1", "2", "3")]
    load_rows("id,v\n1,x\n", "t", "append", writer=writer)
    assert rows(database, "SELECT count(*) FROM two.t") == [(0,)]


def test_names_that_the_merge_uses_itself(database: Database, load_rows: LoadRows, writer: str) -> None:
    names = ("harborctl_key_0", "harborctl_has_key", "harborctl_is_there", "harborctl_is_new", "staged", "current")
    columns = ", ".join(f"{name} text" for name in names)
    database.execute(f"CREATE TABLE harborctl_staging (id integer PRIMARY KEY, {columns}) PARTITION BY RANGE (id)")
    database.execute("CREATE TABLE part PARTITION OF harborctl_staging DEFAULT")
    feed = f"id,{','.join(names)}\n1,a,b,c,d,e,f\n1,a,b,c,d,e,g\n"
    for mode, fate in (("upsert", "inserted"), ("upsert", "unchanged"), ("sync", "unchanged"), ("ignore", "skipped")):
        assert counts(load_rows(feed, "harborctl_staging", mode, writer=writer)) == {fate: 1, "duplicates": 1}


def test_temporary_tables_of_others_are_not_meant(database: Database, load_rows: LoadRows, database_url: str) -> None:
    database.execute("CREATE SCHEMA far; CREATE TABLE far.t (id integer PRIMARY KEY)")
    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("CREATE TEMPORARY TABLE t (id integer PRIMARY KEY); CREATE TEMPORARY TABLE alone (id integer)")
        assert load_rows("id\n1\n", "t", "upsert").table == "far.t"
        assert refusal(lambda: load_rows("id\n1\n", "alone", "upsert")).code == "42P01"


def test_sources_with_their_columns_in_different_orders(
    database: Database, engine: sqlalchemy.Engine, tmp_path: Path, writer: str
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, a text, b text)")
    (tmp_path / "1.csv").write_text("id,a,b\n1,a1,b1\n")
    (tmp_path / "2.csv").write_text("b,id,a\nb2,2,a2\nb3,1,a3\n")
    result = load_file(engine, tmp_path / "*.csv", "t", "upsert", writer=writer)
    assert counts(result) == {"inserted": 2, "duplicates": 1}
    assert rows(database, "SELECT * FROM t ORDER BY 1") == [(1, "a3", "b3"), (2, "a2", "b2")]
    (tmp_path / "2.csv").write_text("id,a\n1,x\n")
    error = refusal(lambda: load_file(engine, tmp_path / "*.csv", "t", "upsert", writer=writer))
    assert (error.code, error.exit_code) == ("columns_differ", 2)


def test_identity_that_would_have_to_change(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute("CREATE TABLE t (id integer GENERATED ALWAYS AS IDENTITY, sku text UNIQUE, v text)")
    feed = "id,sku,v\n7,a,x\n"
    error = refusal(lambda: load_rows(feed, "t", "upsert", key=("sku",), writer=writer))
    assert "--keep id" in error.hint
    assert counts(load_rows(feed, "t", "upsert", key=("sku",), keep=("id",), writer=writer)) == {"inserted": 1}
    changed = feed.replace("7,a,x", "8,a,y")
    assert counts(load_rows(changed, "t", "upsert", key=("sku",), keep=("id",), writer=writer)) == {"updated": 1}
    assert rows(database, "SELECT * FROM t") == [(7, "a", "y")]
    assert counts(load_rows("sku,v\na,z\nb,z\n", "t", "upsert", writer=writer)) == {"inserted": 1, "updated": 1}


def test_generated_columns_cannot_be_loaded(database: Database, load_rows: LoadRows) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, g integer GENERATED ALWAYS AS (id + 1) STORED)")
    error = refusal(lambda: load_rows("id,g\n1,2\n", "t", "upsert"))
    assert (error.column, error.hint) == ("g", "Leave it out with --skip-columns g.")


def test_views(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE base (id integer PRIMARY KEY, v text); CREATE VIEW t AS SELECT id, v FROM base;"
        "CREATE VIEW fixed AS SELECT count(*) AS n FROM base; CREATE MATERIALIZED VIEW kept AS SELECT 1 AS n"
    )
    assert counts(load_rows("id,v\n1,a\n2,b\n", "t", "append", writer=writer)) == {"inserted": 2}
    assert rows(database, "SELECT * FROM base ORDER BY 1") == [(1, "a"), (2, "b")]
    for mode in MODES[1:]:
        error = refusal(partial(load_rows, "id,v\n1,a\n", "t", mode, writer=writer))
        assert (error.code, error.exit_code) == ("42809", 2)
        assert "is a view" in error.message
    assert refusal(lambda: load_rows("n\n1\n", "fixed", "append", writer=writer)).code == "55000"
    assert "materialized view" in refusal(lambda: load_rows("n\n1\n", "kept", "append", writer=writer)).message


def test_views_with_a_trigger(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE base (id integer, v text); CREATE VIEW t AS SELECT id, upper(v) AS v FROM base;"
        "CREATE FUNCTION put() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id = 2 THEN RETURN NULL; END IF;"
        " INSERT INTO base VALUES (NEW.id, NEW.v); RETURN NEW; END $$;"
        "CREATE TRIGGER put INSTEAD OF INSERT ON t FOR EACH ROW EXECUTE FUNCTION put()"
    )
    assert counts(load_rows("id,v\n1,a\n2,b\n", "t", "append", writer=writer)) == {"inserted": 1, "skipped": 1}
    assert rows(database, "SELECT * FROM base") == [(1, "a")]


@pytest.mark.parametrize("partitioned", [False, True])
def test_triggers_that_drop_rows(database: Database, load_rows: LoadRows, writer: str, partitioned: bool) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text)"
        + (" PARTITION BY RANGE (id); CREATE TABLE p PARTITION OF t DEFAULT" if partitioned else "")
    )
    load_rows("id,v\n1,same\n2,old\n3,old\n9,gone\n", "t", "append", writer=writer)
    database.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP = 'DELETE' THEN RETURN NULL; END IF;"
        " IF NEW.v = 'no' THEN RETURN NULL; END IF; NEW.v = NEW.v || '!'; RETURN NEW; END $$;"
        f"CREATE TRIGGER no BEFORE UPDATE OR INSERT OR DELETE ON {'p' if partitioned else 't'}"
        " FOR EACH ROW EXECUTE FUNCTION no()"
    )
    feed = "id,v\n1,same\n2,no\n3,new\n4,no\n5,new\n"
    before = rows(database, "SELECT ctid, xmin FROM t WHERE id IN (1, 2)")
    upserted = load_rows(feed, "t", "upsert", writer=writer)
    assert counts(upserted) == {"inserted": 1, "updated": 1, "unchanged": 1, "skipped": 2}
    assert rows(database, "SELECT ctid, xmin FROM t WHERE id IN (1, 2)") == before
    synced = load_rows(feed, "t", "sync", writer=writer, max_delete=ALL)
    assert synced.deleted == 0  # the trigger keeps it
    assert counts(load_rows("id,v\n6,no\n7,new\n", "t", "ignore", writer=writer)) == {"inserted": 1, "skipped": 1}


def test_row_level_security(
    database: Database, load_rows: LoadRows, writer: str, database_url: str, tmp_path: Any
) -> None:
    role = f"limited_{database.info.dbname}"
    database.execute(
        f"CREATE ROLE {role}; CREATE TABLE t (id integer PRIMARY KEY, v text); GRANT ALL ON t TO {role};"
        f"GRANT ALL ON SCHEMA public TO {role}; ALTER TABLE t ENABLE ROW LEVEL SECURITY;"
        f"CREATE POLICY low ON t TO {role} USING (id < 100); INSERT INTO t VALUES (500, 'hidden')"
    )
    engine = engine_as(database_url, role)
    try:

        def load(text: str, mode: str) -> Any:
            (tmp_path / "f.csv").write_text(text)
            return load_file(engine, tmp_path / "f.csv", "t", mode, writer=writer)

        assert counts(load("id,v\n1,a\n2,b\n", "append")) == {"inserted": 2}
        assert counts(load("id,v\n1,a\n2,c\n3,c\n", "upsert")) == {"inserted": 1, "updated": 1, "unchanged": 1}
        assert refusal(lambda: load("id,v\n700,a\n", "append")).code == "42501"
        assert refusal(lambda: load("id,v\n500,a\n", "upsert")).code == "42501"
        for mode in ("sync", "replace"):
            error = refusal(partial(load, "id,v\n1,a\n", mode))
            assert "row-level security" in error.message
            assert "BYPASSRLS" in error.hint
        assert rows(database, "SELECT * FROM t ORDER BY 1") == [(1, "a"), (2, "c"), (3, "c"), (500, "hidden")]
    finally:
        engine.dispose()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_deferred_constraints_hold_at_commit(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t DEFERRABLE INITIALLY DEFERRED,"
        " place integer UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    )
    load_rows("id,up,place\n1,2,1\n2,1,2\n", "t", "replace", writer=writer)
    assert counts(load_rows("id,up,place\n1,2,2\n2,1,1\n", "t", "upsert", writer=writer)) == {"updated": 2}
    assert refusal(lambda: load_rows("id,up\n3,9\n", "t", "upsert", writer=writer)).code == "23503"
    assert rows(database, "SELECT count(*) FROM t") == [(2,)]


def test_the_target_does_not_change_while_we_load(
    database: Database, engine: sqlalchemy.Engine, load_rows: LoadRows, database_url: str, tmp_path: Any
) -> None:
    database.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    # ALTER TABLE gets its lock first: the load waits, and sees the table as it is then.
    with psycopg.connect(database_url) as other:
        other.execute("ALTER TABLE t DROP COLUMN v")
        errors: list[Any] = []
        thread = threading.Thread(
            target=lambda: errors.append(refusal(lambda: load_rows("id,v\n1,a\n", "t", "upsert")))
        )
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
        wait_for(database, waiting)
        other.commit()
        thread.join()
    assert "has no column v" in errors[0].message


def test_rights_on_some_columns_are_enough(database: Database, database_url: str, tmp_path: Any) -> None:
    role = f"narrow_{database.info.dbname}"
    database.execute(f"CREATE ROLE {role}; CREATE TABLE t (id integer, v text); GRANT INSERT (id) ON t TO {role}")
    engine = engine_as(database_url, role)
    try:
        (tmp_path / "t.csv").write_text("id\n1\n")
        assert load_file(engine, tmp_path / "t.csv", "t", "append").inserted == 1
        assert refusal(lambda: load_file(engine, tmp_path / "t.csv", "t", "replace")).code == "42501"
        database.execute(f"GRANT SELECT, DELETE ON t TO {role}")
        truncating = refusal(lambda: load_file(engine, tmp_path / "t.csv", "t", "replace"))
        assert (truncating.code, truncating.hint) == ("42501", "--no-block does without: it needs only DELETE.")
        assert load_file(engine, tmp_path / "t.csv", "t", "replace", no_block=True).deleted == 1
    finally:
        engine.dispose()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


TREE = (
    "CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t ON DELETE {action}, note text);"
    "INSERT INTO t VALUES (1, NULL, 'root'), (2, 1, 'leaf'), (3, NULL, 'lone'), (4, 3, 'gone')"
)


@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_sync_of_rows_that_refer_to_each_other(
    database: Database, load_rows: LoadRows, writer: str, on_error: str
) -> None:
    sync = partial(load_rows, table="t", mode="sync", writer=writer, max_delete=ALL, on_error=on_error)
    database.execute(TREE.format(action="CASCADE"))
    # 2 would go with 1, and come back without its note.
    error = refusal(lambda: sync("id,up\n2,\n3,\n"))
    assert (error.code, error.exit_code) == ("delete_cascade", 1)
    assert "has would be deleted with those that it lacks: 1" in error.message
    assert "--mode upsert first" in error.hint
    feed = "id,up\n2,\n3,\n5,3\n"
    assert counts(load_rows(feed, "t", "upsert", writer=writer)) == {"inserted": 1, "updated": 1, "unchanged": 1}
    assert rows(database, "SELECT id, up, note FROM t WHERE id = 2") == [(2, None, "leaf")]
    synced = sync(feed + "6,5\n")
    assert counts(synced) == {"inserted": 1, "unchanged": 3, "deleted": 2}
    assert synced.notes == ()
    # Whole branches go at once.
    assert counts(sync("id,up\n2,\n")) == {"unchanged": 1, "deleted": 3}


def test_sync_where_the_server_counts_nothing(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(f"ALTER DATABASE {database.info.dbname} SET track_counts = off")
    database.execute(TREE.format(action="CASCADE"))
    sync = partial(load_rows, table="t", mode="sync", writer=writer, max_delete=ALL)
    assert refusal(lambda: sync("id,up\n2,\n3,\n")).code == "delete_cascade"
    assert counts(sync("id,up\n1,\n3,\n")) == {"unchanged": 2, "deleted": 2}


def test_sync_of_rows_that_others_lead_back_to(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE p PARTITION OF t FOR VALUES FROM (0) TO (2); CREATE TABLE q PARTITION OF t DEFAULT;"
        "CREATE TABLE box (id integer PRIMARY KEY, of_t integer REFERENCES t ON DELETE CASCADE);"
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO box VALUES (7, 1);"
        "ALTER TABLE t ADD box integer DEFAULT 7 REFERENCES box ON DELETE CASCADE; UPDATE t SET box = NULL WHERE id = 1"
    )
    error = refusal(lambda: load_rows("id,v\n2,b\n", "t", "sync", writer=writer, max_delete=ALL))
    assert error.code == "delete_cascade"
    assert rows(database, "SELECT count(*) FROM t") == [(2,)]


def test_sync_says_what_the_deletion_changed(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(TREE.format(action="SET NULL"))
    synced = load_rows("id,up\n2,\n3,\n4,3\n", "t", "sync", writer=writer, max_delete=ALL)
    assert counts(synced) == {"unchanged": 3, "deleted": 1}
    assert "changed 1 rows that stay: by a foreign key with ON DELETE SET NULL" in synced.notes[0]
    refused = refusal(lambda: load_rows("id,up\n2,\n4,3\n", "t", "sync", writer=writer, max_delete=ALL))
    assert refused.code == "23503"
    assert rows(database, "SELECT id, up FROM t ORDER BY 1") == [(2, None), (3, None), (4, 3)]


@pytest.mark.parametrize("partitioned", [False, True])
def test_triggers_that_keep_rows(database: Database, load_rows: LoadRows, writer: str, partitioned: bool) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text, gone boolean)"
        + (" PARTITION BY RANGE (id); CREATE TABLE p PARTITION OF t DEFAULT" if partitioned else "")
    )
    database.execute(
        "INSERT INTO t VALUES (1, 'same'), (2, 'kept'), (3, 'gone');"
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF OLD.v <> 'kept' THEN RETURN OLD; END IF;"
        " UPDATE t SET gone = true WHERE id = OLD.id; RETURN NULL; END $$;"
        f"CREATE TRIGGER keep BEFORE DELETE ON {'p' if partitioned else 't'} FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    synced = load_rows("id,v\n1,same\n", "t", "sync", writer=writer, max_delete=ALL)
    assert counts(synced) == {"unchanged": 1, "deleted": 1}
    assert synced.notes == ("1 rows that the source lacks are still there: a trigger keeps them",)
    replaced = load_rows("id,v\n5,new\n6,new\n", "t", "replace", writer=writer, no_block=True)
    assert counts(replaced) == {"inserted": 2, "deleted": 1}
    assert replaced.notes == ("1 of the old rows are still there: a trigger keeps them",)
    assert rows(database, "SELECT * FROM t ORDER BY 1") == [(2, "kept", True), (5, "new", None), (6, "new", None)]
    # TRUNCATE asks no trigger for a row.
    assert counts(load_rows("id,v\n7,new\n", "t", "replace", writer=writer)) == {"inserted": 1, "deleted": 3}


def test_the_account_is_of_the_rows_of_the_load(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text);"
        "CREATE FUNCTION more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.id > 0 THEN INSERT INTO t VALUES (-NEW.id, 'trigger'); DELETE FROM t WHERE v = 'drop'; END IF;"
        " RETURN NULL; END $$;"
        "CREATE TRIGGER more AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION more()"
    )
    for mode in MODES:
        settings = {"max_delete": ALL} if mode == "sync" else {}
        database.execute("TRUNCATE t")
        result = load_rows("id,v\n1,a\n2,drop\n", "t", mode, writer=writer, **settings)
        assert counts(result) == {"inserted": 2}
        assert rows(database, "SELECT id FROM t ORDER BY 1") == [(-2,), (-1,), (1,)]


@pytest.mark.parametrize("writer", ["values", "copy"])
def test_tables_with_rules_that_a_mode_would_meet_are_refused(
    load_rows: LoadRows, database: Database, writer: str
) -> None:
    """COPY passes over rules and INSERT does not; of two writers one would do something else."""
    database.execute('CREATE TABLE "T" (id integer PRIMARY KEY, v text)')
    database.execute("CREATE TABLE log (id integer)")
    database.execute('CREATE VIEW behind AS SELECT * FROM "T"')
    text = "id,v\n1,a\n2,b\n"

    def error(table: str, mode: str) -> Any:
        return refusal(partial(load_rows, text, table, mode, writer=writer))

    for event, modes in (
        ("INSERT", set(MODES)),
        ("UPDATE", {"ignore", "upsert", "sync"}),
        ("DELETE", {"sync", "replace"}),
    ):
        row = "old" if event == "DELETE" else "new"
        database.execute(f'CREATE RULE "Told" AS ON {event} TO "T" DO ALSO INSERT INTO log VALUES ({row}.id)')
        for mode, table in [*((mode, "T") for mode in MODES), ("append", "behind")]:
            database.execute('TRUNCATE "T", log')
            if mode in modes:
                refused = error(table, mode)
                assert (refused.code, refused.exit_code) == ("0A000", 2)
                assert f'"Told" on {event} to public."T"' in refused.message
            else:
                load_rows(text, table, mode, writer=writer)
            assert rows(database, 'SELECT count(*) FROM "T"') == [(0 if mode in modes else 2,)]
            assert rows(database, "SELECT count(*) FROM log") == [(0,)]
        database.execute('TRUNCATE "T"')
        database.execute(error("T", "sync").hint.partition(": ")[2])
        assert counts(load_rows(text, "T", "sync", writer=writer)) == {"inserted": 2}
        database.execute('DROP RULE IF EXISTS "Told" ON "T"')


def test_a_key_of_a_type_in_a_schema_that_is_not_on_the_path(
    database: Database, load_rows: LoadRows, writer: str
) -> None:
    # `=` of such a type is found by its index's operator class only. An enum-like type with a class of its own would do
    # as well; a class that compares otherwise than its type does is refused.
    database.execute(
        "CREATE SCHEMA mine; CREATE TYPE mine.pair AS (a integer, b text);"
        "CREATE TABLE pairs (p mine.pair PRIMARY KEY, n integer); "
        "INSERT INTO pairs VALUES ((1, 'x'), 1), ((2, 'y'), 2);"
        "CREATE FUNCTION mine.same(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS"
        " $$ SELECT lower($1) OPERATOR(pg_catalog.=) lower($2) $$;"
        "CREATE FUNCTION mine.less(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS"
        " $$ SELECT lower($1) OPERATOR(pg_catalog.<) lower($2) $$;"
        "CREATE FUNCTION mine.order(text, text) RETURNS integer IMMUTABLE LANGUAGE sql AS"
        " $$ SELECT bttextcmp(lower($1), lower($2)) $$;"
        "CREATE OPERATOR mine.= (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.same);"
        "CREATE OPERATOR mine.< (LEFTARG = text, RIGHTARG = text, FUNCTION = mine.less);"
        "CREATE OPERATOR CLASS mine.folded FOR TYPE text USING btree AS"
        " OPERATOR 1 mine.<, OPERATOR 3 mine.=, FUNCTION 1 mine.order(text, text);"
        "CREATE TABLE folded (code text, n integer); CREATE UNIQUE INDEX folded_code ON folded (code mine.folded)"
    )
    rows = 'p,n\n"(1,x)",1\n"(2,y)",3\n"(3,z)",4\n'
    assert counts(load_rows(rows, "pairs", "upsert", writer=writer)) == {"inserted": 1, "updated": 1, "unchanged": 1}
    own = refusal(lambda: load_rows("code,n\na,1\n", "folded", "upsert", key=("code",), writer=writer))
    assert "that on (code) is compared in a way of its own" in own.message


def test_a_deferrable_index_beside_the_key(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text, UNIQUE (id) DEFERRABLE);"
        "CREATE TABLE public.harborctl_staging (id integer, v text); INSERT INTO t VALUES (1, 'a')"
    )
    rows = "id,v\n1,b\n2,c\n"
    assert counts(load_rows(rows, "t", "upsert", writer=writer)) == {"inserted": 1, "updated": 1}
    assert database.execute("SELECT count(*) FROM public.harborctl_staging").fetchone() == (0,)


def test_rows_that_are_there_need_no_other_columns(
    database: Database, load_rows: LoadRows, writer: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the reject file goes
    database.execute(
        "CREATE TABLE t (id serial PRIMARY KEY, code text UNIQUE, name text NOT NULL, price integer,"
        " state text NOT NULL DEFAULT 'new' CHECK (state <> 'new' OR price IS NULL));"
        "INSERT INTO t (code, name, price, state) VALUES ('a', 'A', 1, 'old'), ('b', 'B', 2, 'old')"
    )
    for feed, expected in (
        ("code,price\nb,2\na,5\n", {"updated": 1, "unchanged": 1}),
        ("code,price\nb,7\n", {"updated": 1}),
    ):
        assert counts(load_rows(feed, "t", "upsert", key=("code",), writer=writer)) == expected
    # A row that is there draws no number for its id.
    assert database.execute("SELECT last_value FROM t_id_seq").fetchone() == (2,)
    left = database.execute("SELECT id, code, name, price, state FROM t ORDER BY id").fetchall()
    assert left == [(1, "a", "A", 5, "old"), (2, "b", "B", 7, "old")]
    new = "code,price\na,5\nc,1\n"
    error = refusal(lambda: load_rows(new, "t", "upsert", key=("code",), writer=writer))
    assert (error.code, error.location.line, error.column) == ("23502", 3, "name")
    assert "--update-only" in error.hint
    assert counts(load_rows(new, "t", "upsert", key=("code",), update_only=True, writer=writer)) == {
        "unchanged": 1,
        "skipped": 1,
    }
    assert counts(load_rows(new, "t", "upsert", key=("code",), on_error="reject", writer=writer)) == {
        "unchanged": 1,
        "rejected": 1,
    }


@pytest.mark.parametrize("made", ["", "PARTITION BY HASH (id)"])
def test_each_row_fires_the_triggers_of_what_is_done_to_it(
    database: Database, load_rows: LoadRows, writer: str, made: str
) -> None:
    database.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, v text, filled text NOT NULL) {made};"
        + ("CREATE TABLE t_1 PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);" if made else "")
        + "CREATE TABLE fired (what text);"
        "CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO fired VALUES (TG_OP || ' ' || NEW.id); NEW.filled := 'x'; RETURN NEW; END $$;"
        "CREATE TRIGGER noted BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION noted();"
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'); TRUNCATE fired"
    )
    assert counts(load_rows("id,v\n1,a\n2,c\n3,d\n", "t", "upsert", writer=writer)) == {
        "inserted": 1,
        "updated": 1,
        "unchanged": 1,
    }
    assert database.execute("SELECT what FROM fired ORDER BY what").fetchall() == [("INSERT 3",), ("UPDATE 2",)]
    assert counts(load_rows("id,v\n4,a\n", "t", "append", writer=writer)) == {"inserted": 1}


@pytest.mark.parametrize("mode", ["upsert", "sync", "ignore"])
@pytest.mark.parametrize("first", ["", "a@x,1,k"])
def test_a_trigger_that_changes_the_key(
    database: Database, load_rows: LoadRows, writer: str, mode: str, first: str
) -> None:
    database.execute(
        "CREATE TABLE t (email text PRIMARY KEY, n integer, keep text);"
        "CREATE UNIQUE INDEX lowered ON t (lower(email));"
        "CREATE FUNCTION lowered() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.email := lower(NEW.email); RETURN NEW; END $$;"
        "CREATE TRIGGER lowers BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION lowered()"
    )
    if first:
        database.execute("INSERT INTO t VALUES ('a@x', 1, 'k')")
    settings = {"writer": writer, **({"max_delete": Limit(percent=100)} if mode == "sync" else {})}
    error = refusal(lambda: load_rows("email,n\nA@x,2\n", "t", mode, **settings))
    assert (error.code, "trigger lowers of public.t changes the key (email)" in error.message) == ("key_changed", True)
    assert database.execute("SELECT n, keep FROM t").fetchall() == ([(1, "k")] if first else [])
    done = load_rows("email,n\nA@x,2\n", "t", mode, key=("lower(email)",), **settings)
    assert counts(done) == (
        {"skipped": 1} if mode == "ignore" and first else {"updated": 1} if first else {"inserted": 1}
    )


@pytest.mark.parametrize("newest", [None, "at"])
def test_a_table_named_like_the_one_of_on_conflict(
    database: Database, load_rows: LoadRows, writer: str, newest: str | None
) -> None:
    database.execute("CREATE TABLE excluded (id integer PRIMARY KEY, at integer)")
    for mode in ("upsert", "sync", "ignore"):
        database.execute("TRUNCATE excluded; INSERT INTO excluded VALUES (1, 1), (2, 1)")
        settings = {"newest_by": newest} if mode == "upsert" else {}
        account = counts(load_rows("id,at\n1,1\n2,2\n3,3\n", "excluded", mode, writer=writer, **settings))
        assert account.get("inserted") == 1


def test_a_view_of_a_table_that_makes_its_numbers_itself(database: Database, load_rows: LoadRows, writer: str) -> None:
    database.execute(
        "CREATE TABLE base (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);"
        "CREATE VIEW near AS SELECT v, id FROM base;"
        "CREATE VIEW t AS SELECT id AS number, v FROM near WITH CHECK OPTION"
    )
    for on_error in ("abort", "reject"):
        database.execute("TRUNCATE base")
        assert counts(load_rows("number,v\n7,a\n9,b\n", "t", "append", writer=writer, on_error=on_error)) == {
            "inserted": 2
        }
        assert rows(database, "SELECT id FROM base ORDER BY 1") == [(7,), (9,)]


@pytest.mark.parametrize("on_error", ["abort", "reject"])
@pytest.mark.parametrize("made", ["", "PARTITION BY HASH (id)"])
def test_what_is_required_may_be_filled_by_a_trigger(
    database: Database, load_rows: LoadRows, writer: str, made: str, on_error: str
) -> None:
    part = "CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);" if made else ""
    database.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, v text NOT NULL, w text NOT NULL) {made}; {part}"
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " NEW.v := coalesce(NEW.v, 'v'); NEW.w := coalesce(NEW.w, 'w'); RETURN NEW; END $$;"
        f"CREATE TRIGGER fill BEFORE INSERT OR UPDATE ON {'p' if made else 't'}"
        " FOR EACH ROW EXECUTE FUNCTION fill()"
    )
    for mode in MODES:
        database.execute("TRUNCATE t")
        settings = {"on_error": on_error, "writer": writer}
        assert counts(load_rows("id,v\n1,\n2,x\n", "t", mode, **settings)) == {"inserted": 2}
        assert rows(database, "SELECT * FROM t ORDER BY 1") == [(1, "v", "w"), (2, "x", "w")]
        if mode in {"upsert", "sync"}:
            assert counts(load_rows("id,v\n1,y\n2,\n", "t", mode, **settings)) == {"updated": 2}
            assert rows(database, "SELECT * FROM t ORDER BY 1") == [(1, "y", "w"), (2, "v", "w")]


def test_as_many_columns_as_a_table_can_have(database: Database, load_rows: LoadRows) -> None:
    names = [f"c{number}" for number in range(1599)]
    database.execute(f"CREATE TABLE t (id integer PRIMARY KEY, {', '.join(f'{name} integer' for name in names)})")
    database.execute("INSERT INTO t VALUES (1, 5)")
    feed = f"id,{','.join(names)}\n1,6{',' * 1598}\n"
    dry = load_rows(feed, "t", "upsert", dry_run=True)
    assert counts(dry) == {"updated": 1}
    assert [(name, each.old, each.new) for name, each in dry.changes[0].columns.items()] == [("c0", "5", "6")]
    for settings in ({"writer": "values"}, {"on_error": "reject"}):
        error = refusal(partial(load_rows, feed, "t", "upsert", **settings))
        assert (error.code, "1,600 columns of public.t are filled" in error.message) == ("54011", True)


def test_a_dry_run_shows_text_of_any_encoding(server_url: str, tmp_path: Path, writer: str) -> None:
    name = f"harborctl_ascii_{writer}_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
        try:
            address = sqlalchemy.make_url(url_of(server_url, name)).update_query_dict({"client_encoding": "UTF8"})
            engine = engine_of(address.render_as_string(hide_password=False))
            with engine.begin() as connection:
                connection.exec_driver_sql("CREATE TABLE t (id integer PRIMARY KEY, v text)")
                connection.exec_driver_sql("INSERT INTO t VALUES (1, E'caf\\351'), (2, E'th\\351')")
            (tmp_path / "t.csv").write_text("id,v\n1,café\n")
            load = partial(load_file, engine, tmp_path / "t.csv", "t", writer=writer, dry_run=True)
            updated, deleted = load("sync", max_delete=ALL).changes
            assert (updated.columns["v"].old, updated.columns["v"].new) == ("caf\\xe9", "café")
            assert deleted.columns["v"].old == "th\\xe9"
            assert [change.columns["v"].old for change in load("replace").changes if change.kind == "deleted"] == [
                "caf\\xe9",
                "th\\xe9",
            ]
            engine.dispose()
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_sync_deletes_nothing_while_a_row_without_its_key_is_put_aside(
    database: Database, load_rows: LoadRows, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database.execute(
        "CREATE TABLE t (k text, v text); CREATE UNIQUE INDEX ON t (lower(k)); INSERT INTO t VALUES ('a', 'x')"
    )
    settings = {"key": ("lower(k)",), "max_delete": ALL, "on_error": "reject"}
    assert counts(load_rows("k,v\n,y\n", "t", "sync", writer=writer, **settings)) == {"rejected": 1}
    assert rows(database, "SELECT * FROM t") == [("a", "x")]


def test_another_index_of_a_partition_is_not_the_key(
    database: Database, load_rows: LoadRows, writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE p PARTITION OF t DEFAULT; CREATE UNIQUE INDEX folded ON p (lower(v));"
        "INSERT INTO t VALUES (1, 'a');"
        "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
        "CREATE TRIGGER pass BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION pass()"
    )
    error = refusal(lambda: load_rows("id,v\n2,A\n3,b\n", "t", "upsert", writer=writer))
    assert (error.code, error.location.line) == ("23505", 2)
    account = counts(load_rows("id,v\n2,A\n3,b\n", "t", "upsert", writer=writer, on_error="reject"))
    assert account == {"inserted": 1, "rejected": 1}
