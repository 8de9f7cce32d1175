"""The rights that docs/connections.md says a load needs are enough, and none of them is too many."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine

from harborctl.db import migrations, rights
from tests.conftest import execute
from tests.inprocess import Invoke, invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["invoke"]

PAGE = (Path(__file__).parents[2] / "docs/connections.md").read_text()
SCRIPT = re.search(r"```sql\n(.*?)```", PAGE, re.DOTALL)
MODES = re.findall(r"^\| `([a-z -]+)` \| ([A-Z, ]+) \|$", PAGE, re.MULTILINE)


@pytest.fixture
def etl(engine: Engine) -> Iterator[tuple[str, str]]:
    """A role to which the page's script was done, and its URL; its target is shop.orders."""
    database = str(engine.url.database)
    role = f"etl_of_{database}"
    execute(engine, "CREATE SCHEMA shop", "CREATE TABLE shop.orders (id int PRIMARY KEY, n int CHECK (n < 9))")
    execute(engine, f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    assert SCRIPT
    execute(engine, re.sub(r"\betl\b", role, SCRIPT[1]).replace("warehouse", database))
    url = engine.url.set(drivername="postgresql").update_query_dict({"options": f"-crole={role}"})
    yield role, url.render_as_string(hide_password=False)
    execute(engine, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_the_page_says_what_is_granted() -> None:
    assert SCRIPT
    ledger = SCRIPT[1].partition("-- The ledger")[2].splitlines()[1:]
    assert [line.rstrip(";") for line in ledger] == rights.grants(["ledger"], "etl")[1:]


def test_each_mode_needs_what_is_said(engine: Engine, etl: tuple[str, str], invoke: Invoke, tmp_path: Path) -> None:
    role, url = etl
    (tmp_path / "rows.csv").write_text("id,n\n1,1\n2,2\n")
    assert [mode.split()[0] for mode, _ in MODES] == ["append", "ignore", "upsert", "sync", "replace", "replace"]
    wrong = []
    for mode, listed in MODES:
        privileges = listed.split(", ")
        for left_out in (None, *privileges):
            given = [privilege for privilege in privileges if privilege != left_out]
            execute(
                engine,
                "TRUNCATE shop.orders",
                "INSERT INTO shop.orders VALUES (2, 7), (3, 3)" if mode != "append" else "SELECT",
                f"REVOKE ALL ON shop.orders FROM {role}",
                f"GRANT {', '.join(given) or 'REFERENCES'} ON shop.orders TO {role}",
            )
            options = ["--again", "--mode", *mode.split(), *(["--max-delete", "100%"] if mode == "sync" else [])]
            done = invoke("load", "rows.csv", "-t", "shop.orders", *options, "--url", url)
            if left_out == "INSERT":
                doctor = invoke("doctor", "-t", "shop.orders", "--url", url)
                assert doctor.code == 1
                assert re.search(rf"→ GRANT .*INSERT.* ON shop.orders TO {role}, as its owner", doctor.stdout)
            if (done.code == 0) != (left_out is None) or done.code not in {0, 1}:
                wrong.append((mode, left_out, done.code, done.stderr))
    assert not wrong, wrong


@pytest.mark.parametrize("options", [["--commit-every", "1", "--on-error", "reject"], ["--jobs", "2"], ["--dry-run"]])
def test_other_ways_to_load_need_no_more(
    etl: tuple[str, str], invoke: Invoke, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "rows.csv").write_text("id,n\n1,1\n2,2\n3,9\n" if "reject" in options else "id,n\n1,1\n2,2\n")
    done = invoke("load", "rows.csv", "-t", "shop.orders", "--mode", "upsert", *options, "--url", etl[1])
    assert done.code == (4 if "reject" in options else 0), done.stderr
    assert "warn" not in done.stderr
    doctor = invoke("doctor", "--url", etl[1], "-t", "shop.orders")
    assert doctor.code == 0, doctor.stdout
    assert f"ok    target: shop.orders: {etl[0]} may SELECT, INSERT, UPDATE, DELETE" in doctor.stdout


def test_rights_on_columns(engine: Engine, etl: tuple[str, str], invoke: Invoke, tmp_path: Path) -> None:
    """A load of these columns needs no others, unless a row cannot be without them."""
    role, url = etl
    (tmp_path / "rows.csv").write_text("id,n\n1,1\n2,2\n")
    execute(
        engine,
        'ALTER TABLE shop.orders ADD "Note" text, ADD at date NOT NULL DEFAULT now()',
        "ALTER TABLE shop.orders ADD number integer GENERATED ALWAYS AS IDENTITY",
        f"REVOKE ALL ON shop.orders FROM {role}",
        f'GRANT SELECT (id, n), INSERT (id, n, "Note"), UPDATE (n) ON shop.orders TO {role}',
    )
    load = ("load", "rows.csv", "-t", "shop.orders", "--mode", "upsert", "--url", url)
    doctor = ("doctor", "-t", "shop.orders", "--url", url)
    assert invoke(*load).code == 0
    said = invoke(*doctor)
    assert said.code == 0, said
    assert f'ok    target: shop.orders: {role} may SELECT (id, n), INSERT (id, n, "Note"), UPDATE (n)\n' in said.stdout
    assert f"warn  target: shop.orders: {role} may not DELETE\n" in said.stdout
    execute(engine, "TRUNCATE shop.orders", "ALTER TABLE shop.orders ADD must integer NOT NULL")
    (tmp_path / "rows.csv").write_text("id,n,must\n1,1,1\n")
    assert invoke(*load).code == 1
    said = invoke(*doctor)
    assert said.code == 1
    assert f"fail  target: shop.orders: {role} may not INSERT (must), DELETE\n" in said.stdout
    [grant] = re.findall(r"→ (GRANT .*), as its owner\.", said.stdout)
    execute(engine, grant, f"GRANT SELECT (must), UPDATE (must) ON shop.orders TO {role}")
    assert invoke(*doctor).code == 0
    assert invoke(*load).code == 0


def test_up_and_sql_grant_the_rights(engine: Engine, etl: tuple[str, str], invoke: Invoke, tmp_path: Path) -> None:
    role, url = etl
    execute(engine, f"REVOKE ALL ON ALL TABLES IN SCHEMA harborctl FROM {role}")
    execute(engine, f"REVOKE ALL ON SCHEMA harborctl FROM {role}")
    execute(engine, f"REVOKE TEMPORARY ON DATABASE {engine.url.database} FROM {role}")
    (tmp_path / "rows.csv").write_text("id,n\n1,1\n")
    load = ("load", "rows.csv", "-t", "shop.orders", "--mode", "upsert", "--url", url)
    assert invoke(*load).code == 1
    assert invoke("doctor", "--url", url).code == 1
    assert f"GRANT SELECT, INSERT, UPDATE ON harborctl.loads TO {role};" in migrations.offline_sql(grant_to=role)
    done = invoke("migrate", "up", "ledger", "--grant-to", role)
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr.endswith(f"ledger up to date; {role} may load\n")
    assert invoke(*load).code == 0
    assert invoke("migrate", "up", "--grant-to", "no_such_role").code == 1
