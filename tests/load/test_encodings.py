"""Databases that are not in UTF-8: what happened to a load is written down whatever characters its names have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from harborctl.db.migrations import upgrade
from harborctl.db.storable import _codec, _with_escapes
from tests.conftest import engine_of, url_of
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def url(request: pytest.FixtureRequest, server_url: str) -> Iterator[str]:
    """The URL of a migrated database in that encoding."""
    name = f"harborctl_{request.param.lower()}_{os.getpid()}"
    with psycopg.connect(server_url, autocommit=True) as session:
        encoding = f"ENCODING '{request.param}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        session.execute(f"CREATE DATABASE {name} {encoding}".encode())
        made = url_of(server_url, name)
        in_characters = make_url(made).update_query_dict({"client_encoding": "utf8"})  # not bytes, as of SQL_ASCII
        engine = engine_of(in_characters.render_as_string(hide_password=False))
        upgrade(engine)
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE TABLE t (a int, b text)")
        engine.dispose()
        yield made
        session.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def test_the_ledger_takes_every_name(invoke: Invoke, url: str, tmp_path: Path) -> None:
    env = {"HARBORCTL_URL": url}
    good, bad = tmp_path / "漢字 ä €.csv", tmp_path / "bad 😀.csv"
    good.write_text("a,b\n1,x\n")
    bad.write_text("a,b\n漢\0?,y\n")
    run = invoke(
        "load", good, "-t", "t", "--set", "b=z", "--skip-columns", "b", "--check", "b <> '語'", "--json", env=env
    )
    if run.code:  # SQL that the database cannot even read
        assert "漢字" not in run.stderr
        run = invoke("load", good, "-t", "t", "--skip-columns", "b", "--json", env=env)
    assert (run.code, run.stderr) == (0, "")
    loaded = json.loads(run.stdout)
    assert invoke("load", good, "-t", "t", "--skip-columns", "b", "--quiet", env=env).code == 0
    chunks = ("--commit-every", "1", "--quiet", "--json")
    assert invoke("load", good, "-t", "t", "--skip-columns", "b", "--again", *chunks, env=env).code == 0
    failed = json.loads(invoke("load", bad, "-t", "t", *chunks, env=env).stdout)
    again = json.loads(invoke("load", bad, "-t", "t", *chunks, env=env).stdout)
    told = {row["load_id"]: row["status"] for row in json.loads(invoke("history", "--json", env=env).stdout)}
    assert [told[run["load_id"]] for run in (loaded, failed, again)] == ["loaded", "failed", "failed"]
    assert "running" not in told.values()
    one = json.loads(invoke("history", failed["load_id"], "--json", env=env).stdout)
    assert one["error"]["value"] == r"\u6f22\0?"
    assert one["options"]["sources"] == [f"{tmp_path}/bad \\U0001f600.csv"]
    assert (invoke("history", loaded["load_id"], env=env).code, invoke("history", env=env).code) == (0, 0)


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("UTF8", r"aä€漢\0"),
        ("LATIN1", r"aä\u20ac\u6f22\0"),
        ("LATIN9", r"aä€\u6f22\0"),
        ("WIN1252", r"aä€\u6f22\0"),
        ("KOI8R", r"a\xe4\u20ac\u6f22\0"),
        ("EUC_JP", r"aä\u20ac漢\0"),
        ("SQL_ASCII", r"a\xe4\u20ac\u6f22\0"),
        ("MULE_INTERNAL", r"a\xe4\u20ac\u6f22\0"),
    ],
)
def test_what_an_encoding_has(encoding: str, stored: str) -> None:
    assert _with_escapes({"aä€漢\0": ["aä€漢\0", None, 1]}, _codec(encoding)) == {stored: [stored, None, 1]}
    assert _with_escapes("\udce9", "utf-8") == r"\udce9"
