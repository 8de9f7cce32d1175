"""Users who may not do everything: what PostgreSQL lets them do, a load can; what not, is said with the way out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.model import Limit
from tests.load.direct import counts, load_file, refusal
from tests.load.test_targets import engine_as

Database = psycopg.Connection[Any]
Load = Callable[..., Any]


@pytest.fixture
def narrow(database: Database, database_url: str, tmp_path: Path) -> Iterator[tuple[str, Load]]:
    """The name of a role without any rights, and how to load as that role."""
    role = f"narrow_{database.info.dbname}"
    database.execute(f"CREATE ROLE {role}")
    engine = engine_as(database_url, role)

    def load(feed: str, mode: str, **settings: Any) -> Any:
        (tmp_path / "t.csv").write_text(feed)
        return load_file(engine, tmp_path / "t.csv", "t", mode, **settings)

    yield role, load
    engine.dispose()
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


FEED = "id,v\n1,a\n2,new\n3,add\n"


@pytest.mark.parametrize("on_error", ["abort", "reject"])
@pytest.mark.parametrize("made", ["", "PARTITION BY HASH (id)"])
def test_rights_on_the_columns_of_the_file_are_enough(
    database: Database, narrow: tuple[str, Load], writer: str, made: str, on_error: str
) -> None:
    role, load = narrow
    part = "CREATE TABLE p PARTITION OF t FOR VALUES WITH (MODULUS 1, REMAINDER 0);" if made else ""
    database.execute(
        f"CREATE TABLE t (id integer PRIMARY KEY, v text, secret text DEFAULT 'x') {made}; {part}"
        f"GRANT INSERT (id, v), SELECT (id, v), UPDATE (v) ON t TO {role}"
    )
    expected: dict[str, list[dict[str, int]]] = {
        "append": [{"inserted": 3}],
        "ignore": [{"inserted": 1, "skipped": 2}, {"skipped": 3}],
        "upsert": [{"inserted": 1, "updated": 1, "unchanged": 1}, {"unchanged": 3}],
    }
    for mode, accounts in expected.items():
        database.execute("TRUNCATE t")
        if mode != "append":
            database.execute("INSERT INTO t VALUES (1, 'a', 's'), (2, 'b', 's')")
        for account in accounts:
            dry = load(FEED, mode, writer=writer, dry_run=True, on_error=on_error)
            assert counts(dry) == account
            assert counts(load(FEED, mode, writer=writer, on_error=on_error)) == account
    assert database.execute("SELECT * FROM t ORDER BY id").fetchall() == [
        (1, "a", "s"), (2, "new", "s"), (3, "add", "x"),
    ]  # fmt: skip
    database.execute(f"GRANT DELETE ON t TO {role}")
    dry = load("id,v\n1,a\n", "sync", writer=writer, dry_run=True, max_delete=Limit(percent=100))
    assert [change.kind for change in dry.changes] == ["deleted", "deleted"]
    synced = load("id,v\n1,a\n", "sync", writer=writer, max_delete=Limit(percent=100), on_error=on_error)
    assert counts(synced) == {"unchanged": 1, "deleted": 2}
    assert counts(load(FEED, "replace", writer=writer, no_block=True)) == {"inserted": 3, "deleted": 1}


def test_a_merge_that_may_not_see_what_it_compares_says_so(database: Database, narrow: tuple[str, Load]) -> None:
    role, load = narrow
    database.execute(f"CREATE TABLE t (id integer PRIMARY KEY, v text, w text); GRANT INSERT, UPDATE ON t TO {role}")
    error = refusal(lambda: load("id,v\n1,a\n", "upsert"))
    assert error.code == "42501"
    assert error.message.startswith("mode upsert compares rows: it must read the columns id, v of public.t")
    assert error.hint == "Its owner can GRANT SELECT (id, v) ON public.t to this user."
    database.execute(f"GRANT SELECT (id, v) ON public.t TO {role}")
    assert load("id,v\n1,a\n", "upsert").inserted == 1


@pytest.mark.parametrize("on_error", ["abort", "reject"])
def test_a_database_without_the_right_to_temporary_tables(
    database: Database, narrow: tuple[str, Load], writer: str, on_error: str
) -> None:
    role, load = narrow
    name = database.info.dbname
    database.execute(
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; CREATE TABLE t (id integer PRIMARY KEY, v text)"
    )
    database.execute(f"GRANT ALL ON t TO {role}")
    assert load("id,v\n1,a\n", "append", writer=writer).inserted == 1
    error = refusal(lambda: load("id,v\n1,b\n", "upsert", writer=writer, on_error=on_error))
    assert error.code == "42501"
    assert error.message == "this load puts rows into a temporary table first, which this user may not create"
    assert error.hint == f"The owner of the database can GRANT TEMPORARY ON DATABASE {name} to this user."
    database.execute(f"GRANT TEMPORARY ON DATABASE {name} TO {role}")
    assert load("id,v\n1,b\n", "upsert", writer=writer, on_error=on_error).updated == 1
