"""Sources that can be read only once, whatever they are called: pipes, descriptors, FIFOs. Nobody opens one twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.db.engine import open_database
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import ConnectionOptions, LoadOptions, Mode
from tests.inprocess import Invoke, invoke  # noqa: F401  # a fixture
from tests.load.proxy import after_bytes, proxied

KINDS = ["fifo", "descriptor"]


@pytest.fixture
def table(database: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    database.execute("CREATE TABLE t (id integer, v text)")
    return database


def rows_in(table: psycopg.Connection[Any]) -> list[Any]:
    return table.execute("SELECT id, v FROM t ORDER BY id").fetchall()


@contextmanager
def once(kind: str, data: bytes, folder: Path) -> Iterator[Path]:
    """A name under which `data` can be read once."""
    if kind == "fifo":
        path = folder / "pipe.csv"
        os.mkfifo(path)
    else:
        reading, writing = os.pipe()
        path = Path(f"/dev/fd/{reading}")

    def send() -> None:
        try:
            with open(path if kind == "fifo" else writing, "wb", buffering=0) as out:  # noqa: PTH123  # a descriptor
                out.write(data)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        if kind == "descriptor":
            os.close(reading)
        thread.join(10)
        assert not thread.is_alive()


MANY = b"id,v\n" + b"".join(b"%d,some more text\n" % number for number in range(100_000))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", [Mode.REPLACE, Mode.APPEND])
def test_it_is_not_tried_again(
    table: psycopg.Connection[Any], database_url: str, tmp_path: Path, kind: str, mode: Mode
) -> None:
    table.execute("INSERT INTO t VALUES (-1, 'old')")
    with once(kind, MANY, tmp_path) as path, proxied(database_url, after_bytes(500_000)) as (url, _):
        with open_database(ConnectionOptions(url=url)) as database, pytest.raises(LoadFailed) as failed:
            run_load(database, LoadOptions((str(path),), table="t", mode=mode), Silent())
    assert f"It was not tried again: {path} is read only once." in (failed.value.error.hint or "")
    assert rows_in(table) == [(-1, "old")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_row_ends_the_load(table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path, kind: str) -> None:  # noqa: F811
    with once(kind, b"id,v\n1,a\nx,b\ny,c\n", tmp_path) as path:
        run = invoke("load", path, "-t", "t", "--json")
    error = json.loads(run.stdout)["error"]
    assert (run.code, error["line"], error["value"]) == (1, 3, "x")


@pytest.mark.parametrize("kind", KINDS)
def test_bad_rows_are_put_aside_as_they_stood(
    table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path, kind: str  # noqa: F811
) -> None:  # fmt: skip
    data = MANY + b"x,bad\n100000,good\n1,2,3\n"
    with once(kind, data, tmp_path) as path:
        run = invoke("load", path, "-t", "t", "--on-error", "reject", "--json")
    assert (run.code, json.loads(run.stdout)["rejected"]) == (4, 2)
    assert len(rows_in(table)) == 100_001
    (rejects,) = tmp_path.glob("*.rejects.csv")
    assert "x,bad,/" in rejects.read_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", [("--jobs", "2"), ("--commit-every", "10")])
def test_it_cannot_be_read_in_pieces(
    table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path, kind: str, option: tuple[str, str]  # noqa: F811
) -> None:  # fmt: skip
    if kind == "fifo":
        path: str | Path = tmp_path / "pip[e].csv"  # a glob finds it
        os.mkfifo(tmp_path / "pipe.csv")
    else:
        path = "/dev/stdin"
    run = invoke("load", path, "-t", "t", *option)
    assert run.code == 2
    assert "can be read only once" in run.stderr
    assert rows_in(table) == []


def test_what_can_be_read_once_is_named_once(table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    path, link = tmp_path / "pipe.csv", tmp_path / "other.csv"
    os.mkfifo(path)
    link.symlink_to(path)
    run = invoke("load", path, link, "-t", "t", "--json")
    assert (run.code, json.loads(run.stdout)["error"]["code"]) == (2, "read_once")


def test_a_table_is_not_called_after_a_descriptor(
    table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    with once("descriptor", b"id,v\n1,a\n", tmp_path) as path:
        run = invoke("load", path, "--json")
    assert json.loads(run.stdout)["error"]["code"] == "no_table"


def test_process_substitution(table: psycopg.Connection[Any], database_url: str, tmp_path: Path) -> None:
    shell = "\"$0\" -m harborctl load -t t <(printf 'id,v\\n1,a\\n') --on-error reject --json"
    done = subprocess.run(
        ["bash", "-c", shell, sys.executable], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        env={**os.environ, "HARBORCTL_HOME": str(tmp_path), "HARBORCTL_URL": database_url},
    )  # fmt: skip
    assert (done.returncode, rows_in(table)) == (0, [(1, "a")]), done


@pytest.mark.parametrize(("how", "message"), [("closed", "standard input is closed"), ("w", "stdin cannot be read: ")])
def test_standard_input_that_cannot_be_read(
    table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str,  # noqa: F811
    message: str,
) -> None:  # fmt: skip
    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr(sys, "stdin", out if how == "w" else None)
        run = invoke("load", "-", "-t", "t", "--json", stdin=None)
    assert run.code == 2
    assert json.loads(run.stdout)["error"]["message"].startswith(message)


def test_names_that_are_not_utf8(table: psycopg.Connection[Any], invoke: Invoke, tmp_path: Path) -> None:  # noqa: F811
    path, missing = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/caf\xe9.csv", b"/caf\xe8.csv"))
    path.write_text("id,v\n1,a\n")
    shown = f"{tmp_path}/caf\\xe9.csv"

    def load(name: Path) -> tuple[int, Any]:
        run = invoke("load", name, "-t", "t", "--json")
        return run.code, json.loads(run.stdout)

    for status in ("loaded", "already_loaded"):
        code, summary = load(path)
        assert (code, summary["status"]) == (0, status)
    assert rows_in(table) == [(1, "a")]
    assert table.execute("SELECT DISTINCT path FROM harborctl.files").fetchall() == [(shown,)]
    path.write_text("id,v\nx,bad\n")
    code, summary = load(path)
    assert (code, summary["error"]["file"], summary["error"]["line"]) == (1, shown, 2)
    code, summary = load(missing)
    assert (code, summary["error"]["hint"]) == (2, f"Did you mean {shown}?")
