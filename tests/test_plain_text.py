"""What people read: nothing steers their terminal, forges a line, or shows a password."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harborctl.errors import HarborctlError
from harborctl.plain_text import as_json, masked, said, said_in_lines, visible
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

SECRET = "pa55/w:or@d"  # noqa: S105  # of nobody
EVIL = "x\nerror: forged\x1b[2J\x9b1m\u202e[/x]:ab:"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://etl:{SECRET}@db.example.org:5432/warehouse",
        f"postgresql:/etl:{SECRET}@db",  # as a path has it
        f"could not parse 'https://u:{SECRET}@h/x'",
        f"host=h password={SECRET} user=u",
        f"postgresql://u@h/d?sslmode=require&sslpassword={SECRET}&x=1",
        f"password = '{SECRET} it\\'s' dbname=x",
        f"PGPASSWORD={SECRET}",
        f"ALTER ROLE etl PASSWORD '{SECRET}'",
        f"OPTIONS (user 'u', password '{SECRET}''')",
        f"ALTER ROLE etl PASSWORD '{SECRET}",  # cut off
        "input_value='postgresql://etl:pa55/w:or...example.org/warehouse'",
    ],
)
def test_passwords_are_masked(text: str) -> None:
    assert "w:or" not in masked(text)
    assert "***" in masked(text)
    assert masked(masked(text)) == masked(text)
    error = HarborctlError(text, hint=text)
    assert "w:or" not in f"{error} {error.message} {error.hint}"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://etl@db:5432/warehouse?host=/tmp",
        "postgresql://db:5432,other:5433/warehouse and postgresql://db:5432",
        "Name one with --map SOURCE=password, or give a constant with --set password=VALUE.",
        "rename with --map 'password=pass_word'",
        "12:30:00@5 and a@b.example, password must not be empty",
        "Check the user's name and password; the password may stand in the URL, PGPASSWORD or ~/.pgpass.",
    ],
)
def test_other_text_is_not_masked(text: str) -> None:
    assert masked(text) == text


@given(st.text(st.characters(codec=None)))
def test_any_text_is_one_visible_line(text: str) -> None:
    line = visible(text)
    assert line.splitlines() in ([line], [])
    line.encode()
    assert not any(character < " " or "\x7f" <= character <= "\x9f" for character in line)
    assert visible(line) == line
    for written in said_in_lines(f"first\n{text}").splitlines()[1:]:
        assert written.startswith(" ")


@given(st.dictionaries(st.text(st.characters(codec=None)), st.text(st.characters(codec=None))))
def test_json_stays_what_it_is(document: dict[str, str]) -> None:
    text = as_json(document)
    assert json.loads(text) == json.loads(json.dumps(document))
    assert visible(text) == text


def test_names_of_files_that_are_not_utf_8_can_be_said() -> None:
    assert said(b"caf\xe9.csv".decode("utf-8", "surrogateescape")) == "caf\\xe9.csv"


def _is_plain(text: str) -> bool:
    return not any(c in text for c in "\x1b\x9b\u202e\r") and "error: forged" not in text.splitlines()


def test_no_data_steers_a_terminal_or_forges_a_line(invoke: Invoke, database_url: str, tmp_path: Path) -> None:
    with psycopg.connect(database_url, autocommit=True) as database:
        database.execute("CREATE TABLE items (id integer PRIMARY KEY, name text)")
        database.execute(
            psycopg.sql.SQL(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.name = 'bad' THEN"
                " RAISE EXCEPTION '%', {}; END IF; RETURN new; END $$"
            ).format(psycopg.sql.Literal(EVIL.replace("%", "%%")))
        )
        database.execute("CREATE TRIGGER refuse BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION refuse()")
    file = tmp_path / f"feed{EVIL.replace('/', '')}.csv"
    quoted = '"' + EVIL + '"'
    calls: list[tuple[str, tuple[Any, ...]]] = [
        (f"id,name\n1,{quoted}\n", ("--dry-run",)),
        (f"id,name\n{quoted},x\n", ()),  # a bad value
        (f"id,{quoted}\n1,x\n", ()),  # a header
        ("id,name\n1,bad\n", ()),  # a trigger's message
        (f"id,name\n1,bad\n2,x\n{quoted},y\n", ("--on-error", "reject", "--force")),
        ("id,name\n7,x\n", ("-t", EVIL)),
        ("id,name\n7,x\n", ("--set", f"{EVIL}=1")),
        ("id,name\n7,x\n", ("--mode", EVIL)),
        ("id,name\n8,x\n", ("--log-format", "json")),
    ]
    for text, options in calls:
        file.write_text(text)
        table = () if "-t" in options else ("-t", "items")
        for form in ((), ("--json",)):
            ran = invoke("load", file, *table, *options, *form)
            assert _is_plain(ran.stdout), ran
            assert _is_plain(ran.stderr), ran
            if form:
                json.loads(ran.stdout)
    listed = invoke("history")
    assert listed.code == 0
    assert _is_plain(listed.stdout)
    assert "[/x]:ab:" in listed.stdout
    (tmp_path / "harborctl.toml").write_text(
        f"[[jobs.nightly.loads]]\nname = {json.dumps(EVIL)}\nsource = {json.dumps(str(file))}\ntable = 'items'\n"
    )
    ran = invoke("run", "nightly")
    assert _is_plain(ran.stdout + ran.stderr), ran
    assert ":ab:" in ran.stdout


def test_an_url_in_the_wrong_place_does_not_show_its_password(
    invoke: Invoke, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    url = f"postgresql://etl:{SECRET}@db.example.org/warehouse"
    for arguments in [
        ("load", "x.csv", "--connection", url),
        ("load", "x.csv", url),
        ("load", "x.csv", "-t", url),
        ("load", "x.csv", "-t", f" {url}"),
        ("load", "x.csv", "--reject-file", url, "--on-error", "reject"),
        ("load", "x.csv", "--mode", url),
        ("load", "x.csv", "--map", f"a={url}"),
        ("load", "x.csv", "--set", f"{url}=1"),
        ("load", "x.csv", "-t", "t", "--key", url),
        ("load", "x.csv", "--ping", url),
        ("load", "x.csv", "--config", url, "--connection", "x"),
        ("count", "t", url),
        ("report", url),
        ("tables", url),
        ("run", url),
        ("history", url),
        (url,),
        ("load", "x.csv", f"--{url}"),
    ]:
        for form in ((), ("--json",), ("--verbose",), ("--log-format", "json")):
            ran = invoke(*arguments, *form)
            assert ran.code != 0
            assert "pa55" not in ran.stdout + ran.stderr, ran
    with psycopg.connect(database_url) as database:
        kept = database.execute("SELECT to_json(l)::text FROM harborctl.loads AS l").fetchall()
        assert "pa55" not in str(kept)
