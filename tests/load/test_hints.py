"""Every hint that names an option is followed here: the load then does what the hint said."""

# ruff: noqa: E501  # a case is a line

from __future__ import annotations

import ast
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import harborctl
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]

TABLES = (
    "CREATE TABLE t (id integer PRIMARY KEY, name text, price numeric DEFAULT 1, twice integer GENERATED ALWAYS AS (id * 2) STORED, seen timestamptz)",
    "CREATE TABLE needs (id integer PRIMARY KEY, name text NOT NULL, town text NOT NULL)",
    "CREATE TABLE numbered (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code text UNIQUE, name text)",
    "CREATE TABLE keyless (id integer, name text)",
    "CREATE TABLE parents (id integer PRIMARY KEY)",
    "CREATE TABLE children (id integer REFERENCES parents)",
    "INSERT INTO parents VALUES (1)",
    "INSERT INTO children VALUES (1)",
    "CREATE VIEW seen AS SELECT * FROM keyless",
)


@dataclass(frozen=True)
class Case:
    """A load that fails, and what its hint says.

    Attributes:
        hint: what the hint is like; the first group, or all of it, holds the options to follow.
        given: the options with which it fails.
        follow: what to say, where that does not stand in the hint word for word. `{}` are the hint's options.
        without: options of `given` that the hint takes away.
        code: how the load then ends.
    """

    hint: str
    text: str
    given: str = "-t t"
    follow: str = "{}"
    without: str = ""
    code: int = 0
    name: str = "f.csv"
    before: tuple[tuple[str, str], ...] = field(default=())  # loads that have been done: text, options


CASES = [
    # columns
    Case(r"The nearest is name; rename with (--map nam=name), or", "id,nam\n1,a\n"),
    Case(r"or leave it out with (--skip-columns nam)\.", "id,nam\n1,a\n"),
    Case(r"Leave it out with (--skip-columns zzz), or say", "id,zzz\n1,a\n"),
    Case(r"or say with (--map zzz=COLUMN) where it goes", "id,zzz\n1,a\n", follow="--map zzz=name"),
    Case(r"Leave it out with (--skip-columns '\"odd, one\"')", 'id,"odd, one"\n1,a\n'),
    Case(r"Leave them out with (--skip-columns xx,zz), or", "id,xx,zz\n1,a,b\n"),
    Case(r"Rename what was probably meant with (--map nam=name --map prise=price)\.", "id,nam,prise\n1,a,2\n"),
    Case(r"with (--map nam=name); leave the others out with (--skip-columns 'zz,#4')", "id,nam,zz,a=b \n1,a,2,3\n"),
    Case(r"Leave it out with (--skip-columns '#1'), or say with", ",id\n1,2\n"),
    Case(r"say with (--map '#1=COLUMN') where #1 goes", ",id\n1,2\n", follow="--map '#1=name'"),
    Case(r"Load it with (--map '#2=COLUMN'), or", "id,\n1,2\n", follow="--map '#2=name'"),
    Case(r"or leave it out with (--skip-columns '#2')\.", "id,\n1,2\n"),
    Case(r"Leave out all but one: (--skip-columns '#3') takes #1", "id,name,id\n1,a,2\n"),
    Case(r"all but one: (--skip-columns id) takes x", "id,x\n1,2\n", "-t t --map x=id"),
    Case(r"Say which one by its position, as in (--map '#1=name')", "a,id,a\n1,2,3\n", "-t t --map a=name", "{} --map '#3=price'", "--map a=name"),
    Case(r"Did you mean name\?", "id,name\n1,2\n", "-t t --map nme=price", "--map name=price", "--map nme=price"),
    Case(r"Did you mean price\?", "id,name\n1,2\n", "-t t --map name=prise", "--map name=price", "--map name=prise"),
    Case(r"Did you mean price\?", "id,name\n1,a\n", "-t t --set prise=2", "--set price=2", "--set prise=2"),
    Case(r"Leave it out with (--skip-columns twice)\.", "id,twice\n1,2\n"),
    Case(r"Take (?:--map x=twice) away, and leave it out with (--skip-columns x)", "id,x\n1,2\n", "-t t --map x=twice", without="--map x=twice"),
    Case(r"Take (--set twice=…) away", "id\n1\n", "-t t --set twice=1", "", "--set twice=1"),
    Case(r"Name one with (--map SOURCE=town), or", "id,name,z\n1,a,b\n", "-t needs --skip-columns z", "--map z=town", "--skip-columns z"),
    Case(r"give a constant with (--set town=VALUE)\.", "id,name\n1,a\n", "-t needs"),
    Case(r"give constants with (--set name=VALUE --set town=VALUE)\.", "id\n1\n", "-t needs"),
    Case(r"with (--columns), or leave", "1,a,2,x,9\n", "-t t --no-header", "--columns id,name,price,seen,q --skip-columns q,seen"),
    Case(r"too many out with (--skip-columns 'column 5')\.", "1,a,2,,9\n", "-t t --no-header"),
    Case(r"read with (--no-header)\.", "", "-t t"),
    # dialect and format
    Case(r"Say (--delimiter ';'), or --detect\.", "id;name\n1;a\n"),
    Case(r"Say (--delimiter tab), or --detect\.", "id\tname\n1\ta\n"),
    Case(r"Say (--delimiter ,), or --detect\.", "id,name\n1,a\n", "-t t --delimiter |", without="--delimiter |"),
    Case(r"for example (--encoding latin-1) or", "id,name\n1,é\n"),
    Case(r"(--quote) changes the quote character", 'id,name\n1,"a\n', follow="--quote \"'\""),
    Case(r"Say (--format csv)\|tsv", "id,name\n1,a\n", name="f.data"),
    Case(r"Another format is named by (--format)", "id,name\n1,a\n", follow="--format csv", name="f.parquet"),
    Case(r"Another format is named by (--format)", "id,name\n1,a\n", follow="--format csv", name="f.arrow"),
    Case(r"raise the limit with (--max-record-bytes)\.", f'{{"id": 1, "name": "{600_000 * "x"}"}}\n', "-t t --max-record-bytes 1000", "--max-record-bytes 1000000", "--max-record-bytes 1000", name="f.jsonl"),
    Case(r"raise the limit with (--max-record-bytes)\.", f'id,name\n1,"{600_000 * "x"}"\n', "-t t --max-record-bytes 1000", "--max-record-bytes 1000000", "--max-record-bytes 1000"),
    Case(r"Say (--null) once\.", "id,name\n1,\n", "-t t --force-not-null name --null a --null b", "--null a", "--null a --null b"),
    Case(r"if the file is CSV, say (--format csv)\.", "id;name\n1;a\n", "-t t --delimiter ';'", name="f.parquet"),
    # bad rows
    Case(r"(--on-error reject) loads the other rows, and puts bad ones aside", "id\nx\n2\n", code=4),
    Case(r"(--on-error reject) loads the other rows", "id,name\n1\n2,b\n", code=4),
    Case(r"(--on-error reject) loads the other rows", "id\n1\n1\n2\n", code=4),
    Case(r"(--on-error reject) loads the other rows", "id\n1\n\n", "-t t --mode upsert", code=4),
    Case(r"(--on-error reject) loads the other rows", "id\n1\n2\n", "-t t --check id<>1", code=4),
    Case(r"Say (--on-error reject)\.", "id\nx\n2\n", "-t t --max-rejects 1", code=4),
    Case(r"raise the limit with (--max-rejects)\.", "id\nx\n2\n", "-t t --on-error reject --max-rejects 0", "--max-rejects 1 --force", "--max-rejects 0", 4),
    Case(r"Raise the limit with (--max-rejects)\.", "id\nx\n2\n", "-t t --dry-run --on-error reject --max-rejects 0", "--max-rejects 1", "--max-rejects 0"),
    Case(r"or overwrite it with (--force)\.", "id\nx\n2\n", "-t t --on-error reject --reject-file here.csv", code=4),
    Case(r"name another with (--reject-file), or", "id\nx\n2\n", "-t t --on-error reject --reject-file here.csv", "--reject-file new.csv", "--reject-file here.csv", 4),
    Case(r"Name another with (--reject-file)\.", "id\nx\n2\n", "-t t --on-error reject --reject-file f.csv", "--reject-file new.csv", "--reject-file f.csv", 4),
    Case(r"(--expect-rows) says how many there may be", "id\n1\n", "-t t --expect-rows 2", "--expect-rows 1", "--expect-rows 2"),
    # modes and keys
    Case(r"It belongs to (--mode) ignore, sync, upsert", "id\n1\n", "-t t --key id", "--mode upsert"),
    Case(r"(--mode upsert) updates that row", "id,name\n1,new\n", before=(("id,name\n1,old\n", "-t t"),)),
    Case(r"Say (--key) COLUMNS; unique there: \(id\); \(code\)", "code\na\n", "-t numbered --mode upsert --key name", "--key code", "--key name"),
    Case(r"Leave new rows alone with (--update-only), or", "id,name\n1,a\n", "-t needs --mode upsert"),
    Case(r"or fill the columns with --map or (--set)\.", "id,name\n1,a\n", "-t needs --mode upsert", "--set town=x"),
    Case(r"Name one with (--map SOURCE=code), or choose another", "name,x\nb,a\n", "-t numbered --mode upsert --key code --skip-columns x", "--map x=code", "--skip-columns x"),
    Case(r"or choose another (--key)\.", "code,name\n1,a\n", "-t numbered --mode upsert", "--key code"),
    Case(r"Use it for new rows only with (--keep id), or", "code,id\na,1\n", "-t numbered --mode upsert --key code"),
    Case(r"or leave it out with (--skip-columns id)\.", "code,id\na,1\n", "-t numbered --mode upsert --key code"),
    Case(r"or take --map x=id away, and (leave it out) with (--skip-columns x)\.", "code,x\na,1\n", "-t numbered --mode upsert --key code --map x=id", "--skip-columns x", "--map x=id"),
    Case(r"or leave it out with (--skip-columns seen)\.", "id,seen\n1,2026-01-01\n", "-t t --mode upsert --touch seen"),
    Case(r"win with (--on-duplicate last) or first", "id\n1\n1\n", "-t t --mode upsert --on-duplicate error", without="--on-duplicate error"),
    Case(r"say (--allow-empty)\.", "id\n", "-t t --mode sync"),
    Case(r"(--max-delete N) or N% raises the limit", "id\n1\n", "-t t --mode sync", "--max-delete 9", before=(("id\n1\n2\n", "-t t"),)),
    Case(r"Use (--mode sync): it deletes only the rows", "id\n1\n", "-t parents --mode replace", without="--mode replace"),
    Case(r"choose another (--key)\.", "code,name\n,b\n", "-t numbered --mode upsert --key code", "--mode append", "--mode upsert --key code"),
    # runs
    Case(r"Leave it out, or use (--mode upsert)\.", "id\n1\n", "-t t --mode sync --commit-every 1", without="--mode sync"),
    Case(r"(--jobs) without --commit-every counts before", "id\n1\n", "-t t --commit-every 1 --expect-rows 1", "--jobs 2", "--commit-every 1"),
    Case(r"Leave out (--no-ledger)\.", "id\n1\n", "-t t --commit-every 1 --no-ledger", "", "--no-ledger"),
    Case(r"Say (--table) \[SCHEMA\.\]TABLE", "id\n1\n", "f.csv f2.csv", "-t t", code=1),  # the second holds other text
    # a table that is not there
    Case(r"Say (--create)\.", "id\n1\n", "-t brand_new --type id=bigint"),
    # columns that come and go
    Case(
        r"or fill what one lacks with NULL: (--missing-columns null)\.", "id,name\n1,a\n", "-t t f2.csv", "{} --on-error reject",
        code=4,
    ),
    # files of other formats
    Case(r"Say (--records data\.items)\.", '{"data": {"items": [{"id": 1}]}}', name="f.json"),
    Case(
        r"Say --records with items or more\.",
        '{"items": [{"id": 1}], "more": [{"id": 2}]}',
        follow="--records items",
        name="f.json",
    ),
    Case(
        r"Load it without --flatten",
        '[{"id": 1, "a": {"b": 1}, "a_b": 2}]',
        "-t t --flatten",
        "--skip-columns a,a_b",
        "--flatten",
        name="f.json",
    ),
    Case(r"Leave it out, or say (--format json)", '[{"id": 1}]', "-t t --flatten"),
    Case(r"Say --widths 10,20,5, or", "id  name\n1   a\n", "-t t --format fixed", "--widths 4,4"),
    Case(r"Say --widths 10,20,5, or", "id  name\n1   a\n", "-t t --format fixed --widths x", "--widths 4,4", "--widths x"),
    Case(
        r"Leave out such lines with (--skip-blank-lines)", "id  name\n1   a\n\n", "-t t --format fixed --widths 4,4"
    ),
    Case(
        r"See whether --widths names every column",
        "1   a x\n",
        "-t t --format fixed --widths id:4,name:2",
        "--widths id:4,name:2,-:5",
        "--widths id:4,name:2",
    ),
]  # fmt: skip

# Hints of what a test of a load cannot bring about, or what others try: locks and servers, chunks that were killed.
ELSEWHERE = (
    "Let the load write by COPY and end at the first bad row",  # 1 600 columns: test_targets.py
    "Name a database with --url",
    "name a database with --url",
    "raise --lock-timeout",
    "let it wait with --lock wait",
    "--statement-timeout raises it",
    "or load with --no-ledger",
    "with --again",
    "say --again.",  # test_once
    "--again loads all of it",
    "Use --mode upsert, or a user with BYPASSRLS",
    "load it with --mode upsert first",
    "Load it with --mode append.",
    "Check space and permissions, or name another with --reject-file",
    "Overwrite it with --force.",  # the file came while the load ran
    "--no-block does without",
    "If that is meant, say --cascade.",  # test_references
    "Leave new rows alone with --update-only",  # test_targets
    # test_formats
    "Write the rows of one table with pg_dump --data-only --table {}.",
    "Say --sheet '{}'. The others are {}.",
    "Take the names out of one of them.",
    "Say --range",
)


def _followed(case: Case, hint: str) -> list[str]:
    found = re.search(case.hint, hint)
    assert found, (case.hint, hint)
    options = " ".join(group for group in found.groups() if group.startswith("--"))
    return shlex.split(case.follow.replace("{}", options))


def _kept(case: Case) -> list[str]:
    words, taken = shlex.split(case.given), shlex.split(case.without)
    for start in range(len(words)):
        if taken and words[start : start + len(taken)] == taken:
            return words[:start] + words[start + len(taken) :]
    assert not taken
    return words


@pytest.fixture
def tables(database_url: str) -> str:
    with psycopg.connect(database_url, autocommit=True) as database:
        for statement in TABLES:
            database.execute(statement)
    return database_url


def test_hints_are_true(invoke: Invoke, tables: str, tmp_path: Path) -> None:
    """One database for all: what a case has loaded goes before the next."""
    with psycopg.connect(tables, autocommit=True) as database:
        for case in CASES:
            for rejects in tmp_path.glob("*.rejects.csv"):
                rejects.unlink()
            (tmp_path / "new.csv").unlink(missing_ok=True)
            (tmp_path / "here.csv").write_text("kept\n")
            (tmp_path / "f2.csv").write_text("id\nx\n")
            for text, options in case.before:
                (tmp_path / "before.csv").write_text(text)
                assert invoke("load", "before.csv", *shlex.split(options)).code == 0
            encoding = "latin-1" if "encoding" in case.hint else "utf-8"
            (tmp_path / case.name).write_text(case.text, encoding=encoding)
            failed = invoke("load", case.name, "--json", *shlex.split(case.given))
            assert failed.code not in {0, 4}, (case, failed)
            hint = json.loads(failed.stdout)["error"]["hint"]
            assert hint, (case, failed)
            done = invoke("load", case.name, *_kept(case), *_followed(case, hint))
            assert done.code == case.code, (case, hint, done)
            database.execute("TRUNCATE t, needs, numbered, keyless")
            database.execute("DELETE FROM harborctl.loads")


def test_every_hint_that_names_an_option_is_tried() -> None:
    """The source is asked for its hints; a new one needs a case above, or a reason to be tried elsewhere."""
    root = Path(harborctl.__file__).parent
    hints = []
    for path in [
        root / "cli" / "load.py",
        *sorted((root / "load").rglob("*.py")),
        *sorted((root / "sources").rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "hint":
                hints += [(path.name, text) for text in _texts(node.value)]
    assert len(hints) > 20
    told = " ".join(case.hint for case in CASES)
    named = [(re.findall(r"--[a-z][a-z-]+", text), file, text) for file, text in hints]
    untried = [
        (file, text)
        for options, file, text in named
        if not (all(option in told for option in options) or any(known in text for known in ELSEWHERE))
    ]
    assert untried == []


def _texts(node: ast.expr) -> list[str]:
    """The texts of an expression, what is put into them left out."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        return ["".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)]
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    return [text for part in getattr(node, "values", []) for text in _texts(part)]


def test_a_type_that_cannot_be_loaded_can_be_left_out(invoke: Invoke, tables: str, tmp_path: Path) -> None:
    interval = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    try:
        pq.write_table(pa.table({"id": [1], "name": interval}), tmp_path / "t.parquet")
    except pa.ArrowNotImplementedError:
        table = pa.table({"id": [1], "name": interval})
        with pa.ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as out:
            out.write_table(table)
    [file] = tmp_path.glob("t.*")
    failed = invoke("load", file, "--json")
    if failed.code:
        hint = json.loads(failed.stdout)["error"]["hint"]
        assert "--skip-columns name" in hint
        assert invoke("load", file, "--skip-columns", "name").code == 0
