"""`harborctl run` and `history`: jobs of the configuration file, who is told of them, and what the ledger keeps."""

# ruff: noqa: E501  # a mistake is a line

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harborctl.jobs import notify
from harborctl.jobs.file import in_words_of_the_file
from tests.conftest import Harborctl, Run
from tests.inprocess import Invoke, invoke
from tests.load.conftest import database, wait_for

__all__ = ["database", "invoke"]

ROOT = Path(__file__).parents[2]

Connection = psycopg.Connection[Any]

JOB = """
[jobs.nightly]
after = "INSERT INTO marks VALUES ('100%')"

[[jobs.nightly.loads]]
source = "orders_{date:%Y%m%d}.csv"
table = "orders"
mode = "upsert"
set = { day = "{date}" }

[[jobs.nightly.loads]]
name = "items"
source = ["items_*.csv"]
table = "items"
missing_ok = true

[[jobs.nightly.reports]]
report = "load_history"
output = "history_{date}.csv"
parameters = { target = "public.orders" }
"""


@pytest.fixture
def job(database: Connection, tmp_path: Path) -> Connection:
    database.execute("CREATE TABLE orders (id integer PRIMARY KEY, day date)")
    database.execute("CREATE TABLE items (id integer)")
    database.execute("CREATE TABLE marks (mark text)")
    (tmp_path / "harborctl.toml").write_text(JOB)
    (tmp_path / "orders_20260301.csv").write_text("id\n1\n2\n")
    return database


def ran(invoke: Invoke, *arguments: str, code: int = 0) -> dict[str, Any]:
    result = invoke("run", "nightly", "--date", "2026-03-01", "--json", *arguments)
    assert result.code == code, result
    summary: dict[str, Any] = json.loads(result.stdout)
    assert summary["exit_code"] == code
    return summary


def test_a_job(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    summary = ran(invoke)
    assert [(load["name"], load["status"]) for load in summary["loads"]] == [("orders", "loaded"), ("items", "missing")]
    assert [step["status"] for step in summary["steps"]] == ["done", "done"]
    assert job.execute("SELECT id, day::text FROM orders").fetchall() == [(1, "2026-03-01"), (2, "2026-03-01")]
    assert job.execute("SELECT mark FROM marks").fetchall() == [("100%",)]
    assert "public.orders,upsert,loaded,2,2" in (tmp_path / "history_2026-03-01.csv").read_text()
    (tmp_path / "items_1.csv").write_text("id\n7\n")
    assert [load["status"] for load in ran(invoke)["loads"]] == ["loaded", "loaded"]
    plain = invoke("run", "nightly", "--date", "2026-03-01")
    assert "already_loaded" in plain.stdout
    assert invoke("run", "nightly", "--date", "2026-03-01", "--quiet").stdout == ""


def test_the_worst_exit_code(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "orders_20260301.csv").write_text("id\nx\n")
    (tmp_path / "items_1.csv").write_text("id\n7\n")
    summary = ran(invoke, code=1)
    assert [load["status"] for load in summary["loads"]] == ["failed"]
    assert summary["steps"] == []
    assert summary["error"]["line"] == 2
    summary = ran(invoke, "--keep-going", code=1)
    assert [load["status"] for load in summary["loads"]] == ["failed", "loaded"]
    assert [step["status"] for step in summary["steps"]] == ["done", "done"]
    (tmp_path / "orders_20260301.csv").unlink()
    assert ran(invoke, "--keep-going", code=2)["error"]["code"] == "no_such_file"


REJECTING = """
[[jobs.nightly.loads]]
source = "orders_{date:%Y%m%d}.csv"
table = "orders"
on_error = "reject"
max_rejects = 1
reject_file = "rejects_{date}.csv"
check = "id <> 9 OR '{date}' = ''"

[[jobs.nightly.loads]]
source = "items_1.csv"
table = "items"
expect_rows = "1.."
"""


def test_rejects_of_a_job(job: Connection, invoke: Invoke, tmp_path: Path, watcher: tuple[str, list[str]]) -> None:
    (tmp_path / "harborctl.toml").write_text(REJECTING)
    (tmp_path / "orders_20260301.csv").write_text("id\n1\n9\n")
    (tmp_path / "items_1.csv").write_text("id\n7\n")
    url, called = watcher
    metrics = tmp_path / "h.prom"
    summary = ran(invoke, "--ping", url, "--metrics-file", str(metrics), code=4)
    assert [load["status"] for load in summary["loads"]] == ["loaded_with_rejects", "loaded"]
    assert summary["loads"][0]["reject_reasons"][0]["code"] == "check"
    assert "9," in (tmp_path / "rejects_2026-03-01.csv").read_text()
    assert called == ["/ping/1/start", "/ping/1"]
    assert 'harborctl_exit_code{job="nightly"} 4.0' in metrics.read_text()
    assert ran(invoke, code=4)["loads"][0]["status"] == "already_loaded"
    called.clear()
    (tmp_path / "bad.csv").write_text("id\n1\nx\n")
    arguments = ("--on-error", "reject", "--ping", url, "--metrics-file", str(metrics))
    assert invoke("load", "bad.csv", "-t", "items", *arguments).code == 4
    assert called == ["/ping/1/start", "/ping/1"]
    assert 'harborctl_exit_code{job="load"} 4.0' in metrics.read_text()


def test_a_failure_is_worse_than_rejects(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "harborctl.toml").write_text(REJECTING)
    (tmp_path / "orders_20260301.csv").write_text("id\n1\n9\n")
    (tmp_path / "items_1.csv").write_text("id\n")
    summary = ran(invoke, code=1)
    assert [load["status"] for load in summary["loads"]] == ["loaded_with_rejects", "failed"]
    assert summary["error"]["code"] == "unexpected_rows"


def test_what_no_part_of_a_load_can_do_is_found_by_the_check(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "harborctl.toml").write_text(REJECTING.replace("max_rejects = 1", 'commit_every = 1000\nmode = "sync"'))
    checked = invoke("run", "nightly", "--check")
    assert (checked.code, "commit_every commits in parts" in checked.stderr) == (2, True)
    loaded = invoke("load", "orders_20260301.csv", "-t", "orders", "--jobs", "2", "--no-ledger")
    assert (loaded.code, "hint: Leave out --no-ledger" in loaded.stderr) == (2, True)


def test_parts_of_a_job(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    summary = ran(invoke, "--dry-run")
    assert [load["status"] for load in summary["loads"]] == ["dry_run", "missing"]
    assert summary["steps"] == []
    assert job.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    summary = ran(invoke, "--only", "items")
    assert [load["name"] for load in summary["loads"]] == ["items"]
    wrong = invoke("run", "nightly", "--only", "item")
    assert (wrong.code, "Did you mean items?" in wrong.stderr) == (2, True)


def test_only_checked(job: Connection, invoke: Invoke) -> None:
    nowhere = {"HARBORCTL_URL": "postgresql://nobody@127.0.0.1:1/none"}
    assert json.loads(invoke("run", "nightly", "--check", "--json", env=nowhere).stdout)["status"] == "valid"


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (('mode = "upsert"', 'mod = "upsert"'), "line 8: jobs.nightly.loads[0].mod is an unknown key", "Did you mean mode?"),
        (('mode = "upsert"', 'mode = "upsrt"'), ".mode must be one of append, ignore, upsert, sync, replace", "Did you mean upsert?"),
        (('mode = "upsert"', 'mode = 5'), "replace, not 5", ""),
        (('mode = "upsert"', 'mode = "append"\nkey = "id"'), "line 9: jobs.nightly.loads[0].key means nothing in mode append", "It belongs to mode"),
        (('mode = "upsert"', 'max_rejects = 5'), "line 8: jobs.nightly.loads[0].max_rejects means nothing without rejects", 'Say on_error = "reject".'),
        (('mode = "upsert"', 'max_rejects = "x"\non_error = "reject"'), "max_rejects x is neither a number of rows nor a percentage", ""),
        (('mode = "upsert"', "batch-size = 0"), "line 8: jobs.nightly.loads[0].batch_size must be 1 or more, not 0", ""),
        (('mode = "upsert"', 'jobs = "many"'), 'loads[0].jobs must be a whole number, not "many"', ""),
        (('mode = "upsert"', "jobs = 1.5"), "loads[0].jobs must be a whole number, not 1.5", ""),
        (('mode = "upsert"', "dry_run = 7"), "loads[0].dry_run must be true or false, not 7", ""),
        (('mode = "upsert"', "key = 7"), "loads[0].key must be a string, or an array of strings, not 7", ""),
        (('table = "orders"', "table = { name = 1 }"), "line 7: jobs.nightly.loads[0].table must be a string, not a table", ""),
        (("missing_ok = true", "missing_ok = []"), "line 15: jobs.nightly.loads[1].missing_ok must be true or false, not an array", ""),
        (("missing_ok", "missing"), "line 15: jobs.nightly.loads[1].missing is an unknown key", "Did you mean missing_ok?"),
        (("after", "afterwards"), "line 3: jobs.nightly.afterwards is an unknown key", "Did you mean after?"),
        (("output", "outptu"), "jobs.nightly.reports[0].outptu is an unknown key", "Did you mean output?"),
        (('output = "history_{date}.csv"', ""), "line 17: jobs.nightly.reports[0] lacks output", 'Add output = "…".'),
        (('name = "items"', 'name = "orders"'), "jobs.nightly.loads[1] is another load of the name orders", ""),
        (("jobs.nightly", "jobs.nightli"), "has no job nightly", "Did you mean nightli?"),
        (('"load_history"', '"load_histori"'), "line 17: jobs.nightly.reports[0] is wrong: ", "load_history"),
        (("{ target =", "{ targt ="), "reports[0] is wrong: report load_history has no parameter", "Did you mean target?"),
        (('{ target = "public.orders" }', '{ target = [1] }'), "parameters.target must be a string, a number, true or false, or a date, not an array", ""),
        (('"items_*.csv"', '"items_{dat}.csv"'), "line 13: jobs.nightly.loads[1].source[0] has an unknown placeholder {dat}", "{date}"),
        (('"items_*.csv"', '"items_{Date:%Y}.csv"'), "unknown placeholder {Date:%Y}", "{date:%Y%m%d}"),
        (('"items_*.csv"', '"items_{date:%Y.csv"'), "placeholder without its }: {date:%Y.csv", "{date:%Y%m%d}"),
        (("{date:%Y%m%d}", "{date:%Y%M%d}"), "line 6: jobs.nightly.loads[0].source asks for the time of a day by %M", "%m the month"),
        (("{date:%Y%m%d}", "{date:%Y%Q}"), "unknown form %Q in {date:%Y%Q}", "%m the month"),
        (("{date:%Y%m%d}", "{date:%Y%}"), "unknown form % in {date:%Y%}", ""),
        (("{date:%Y%m%d}", "{date:Ymd}"), "has a form without any % in {date:Ymd}", ""),
        (('"{date}" }', '"{dat}" }'), "line 9: jobs.nightly.loads[0].set.day has an unknown placeholder {dat}", "{date}"),
        (('"public.orders"', '"public.orders_{dat:%Y}"'), "reports[0].parameters.target has an unknown placeholder {dat:%Y}", ""),
        (('table = "orders"', 'table = "orders_{year}"'), "loads[0].table has an unknown placeholder {year}", ""),
        (('"history_{date}', '"history_{day}'), "reports[0].output has an unknown placeholder {day}", ""),
        (('"history_{date}', '"no/history_{date}'), "in a folder that does not exist: no", "mkdir -p no"),
        (('mode = "upsert"', 'on_error = "reject"\nreject_file = "no no/x"'), "line 9: jobs.nightly.loads[0].reject_file names a file in a folder", "mkdir -p 'no no'"),
        (('source = ["items_*.csv"]', ""), "line 11: jobs.nightly.loads[1] has no source", ""),
        (("[jobs.nightly]", '[jobs.nightly]\nconnection = "x"'), "line 3: jobs.nightly.connection names x", "Add [connections.x]"),
        (("[jobs.nightly]", "[jobs.nightly]\n[jobs.nightly]"), "is not TOML: Cannot declare", ""),
        (("[jobs.nightly]\nafter", "[[jobs.nightly]]\nafter"), "line 2: jobs.nightly must be one table", "Write [jobs.nightly]"),
        ((JOB, "[jobs.nightly]\nafter = 'x'"), "line 1: jobs.nightly has no loads", "[[jobs.nightly.loads]]"),
        ((JOB, "[jobs.nightly]\nloads = []"), "line 1: jobs.nightly has no loads", "[[jobs.nightly.loads]]"),
        ((JOB, "[jobs.nightly.loads]\nsource = 'x'"), "line 1: jobs.nightly.loads must be an array of tables", "Write [[jobs.nightly.loads]]"),
        ((JOB, "jobs.nightly.loads = [{source = 'x', typ = 1}]"), "line 1: jobs.nightly.loads[0].typ is an unknown key", ""),
        ((JOB, JOB.replace("[[jobs.nightly.reports]]", "[jobs.nightly.reports]")), "reports must be an array of tables", "Write [[jobs.nightly.reports]]"),
        ((JOB, "[jobs.nightly]\nloads = ['x.csv']"), "line 2: jobs.nightly.loads[0] must be a table, not \"x.csv\"", ""),
    ],
)  # fmt: skip
def test_mistakes(
    job: Connection, invoke: Invoke, tmp_path: Path, change: tuple[str, str], message: str, hint: str
) -> None:
    (tmp_path / "harborctl.toml").write_text(JOB.replace(*change))
    result = invoke("run", "nightly", "--check")
    assert result.code == 2
    assert message in result.stderr
    assert hint in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "value",
    [
        "{red}",
        "{a,b}",
        '{"date": 1}',
        "{{1,2},{3,4}}",
        "{data}",
        "{}",
        "a{b",
        "{time:x}",
        "{date} {date:%-d.%b %G-W%V %%}",
    ],
)
def test_braces_that_are_no_placeholders(job: Connection, invoke: Invoke, tmp_path: Path, value: str) -> None:
    (tmp_path / "harborctl.toml").write_text(JOB.replace('"{date}" }', f"{json.dumps(value)} }}"))
    assert invoke("run", "nightly", "--check").code == 0


def test_moments_as_parameters(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    names = ("date", "timestamp", "timestamptz", "boolean")
    head = "".join(f"-- param: a_{name} {name}\n" for name in names)
    columns = ", ".join(f"CAST(:a_{name} AS text) AS a_{name}" for name in names)
    columns = columns.replace(":a_timestamptz", ":a_timestamptz AT TIME ZONE 'UTC'")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "moments.sql").write_text(f"-- title: Moments\n{head}SELECT {columns}")
    (tmp_path / "items_1.csv").write_text("id\n1\n")
    (tmp_path / "harborctl.toml").write_text(
        "[[jobs.nightly.loads]]\nsource = 'items_1.csv'\ntable = 'items'\n[[jobs.nightly.reports]]\n"
        "report = 'moments'\noutput = 'out.csv'\n[jobs.nightly.reports.parameters]\na_date = 2026-03-01\n"
        "a_timestamp = 2026-03-01T12:30:00\na_timestamptz = 2026-03-01 12:30:00.5Z\na_boolean = true\n"
    )
    summary = ran(invoke)
    assert [step["status"] for step in summary["steps"]] == ["done"], summary
    assert (tmp_path / "out.csv").read_text().splitlines()[1:] == [
        "2026-03-01,2026-03-01 12:30:00,2026-03-01 12:30:00.5,true"
    ]


def test_each_error_is_told_once_with_its_place(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "orders_20260301.csv").write_text("id\n1\nx\ny\n")
    told = invoke("run", "nightly", "--date", "2026-03-01").stderr
    assert told.splitlines()[0].startswith("error: orders: orders_20260301.csv, line 3, column id: ")
    assert (told.count("invalid input"), told.count("line 3,"), told.count("hint: ")) == (2, 1, 1), told  # also: line 4
    (tmp_path / "items_1.csv").write_text("id\nz\n")
    (tmp_path / "harborctl.toml").write_text(JOB.replace("INTO marks", "INTO marcs"))
    told = invoke("run", "nightly", "--date", "2026-03-01", "--keep-going", "--json").stderr
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert [error.split(": ")[1] for error in errors] == ["orders", "items", "after[0]"]
    lines = invoke("run", "nightly", "--date", "2026-03-01", "--keep-going", "--log-format", "json").stderr.splitlines()
    objects = [json.loads(line) for line in lines if json.loads(line)["level"] == "error"]
    assert [(each["name"], each.get("line")) for each in objects] == [("orders", 3), ("items", 2), ("after[0]", None)]
    told = invoke("run", "nightly", "--url", "postgresql://nobody@127.0.0.1:1/none").stderr
    assert told.count("error: ") == 1
    told = invoke("run", "nightly", "--date", "2026-03-01", "--verbose").stderr
    assert (told.count("Traceback") > 0, told.count("error: orders: ")) == (True, 1)


def test_two_runs_at_once(job: Connection, harborctl: Harborctl, tmp_path: Path) -> None:
    (tmp_path / "harborctl.toml").write_text('[[jobs.nightly.loads]]\nsource = "a.csv"\ntable = "items"\njobs = 2\n')
    (tmp_path / "a.csv").write_text("id\n" + "1\n" * 50_000)
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(harborctl, "run", "nightly", "--json") for _ in range(3)]
        statuses = [json.loads(run.result().stdout)["loads"][0]["status"] for run in runs]
    assert sorted(statuses) == ["already_loaded", "already_loaded", "loaded"]
    assert job.execute("SELECT count(*) FROM items").fetchone() == (50_000,)


def test_a_job_that_runs_already(job: Connection, invoke: Invoke, harborctl: Harborctl, database_url: str) -> None:
    with psycopg.connect(database_url) as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute("LOCK TABLE orders")
        first = pool.submit(harborctl, "run", "nightly", "--date", "2026-03-01")
        wait_for(job, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = x'6872626a'::int::oid")
        failed = invoke("run", "nightly", "--lock", "fail", "--json", "--date", "2026-03-01")
        assert (failed.code, json.loads(failed.stdout)["error"]["code"]) == (5, "locked")
        skipped = invoke("run", "nightly", "--lock", "skip", "--json", "--date", "2026-03-01")
        assert (skipped.code, json.loads(skipped.stdout)["status"]) == (0, "locked")
        blocker.rollback()
        assert first.result().code == 0


# -- who is told


def test_pings_and_metrics(job: Connection, invoke: Invoke, tmp_path: Path, watcher: tuple[str, list[str]]) -> None:
    url, called = watcher
    metrics = tmp_path / "h.prom"
    ran(invoke, "--ping", url, "--metrics-file", str(metrics))
    assert called == ["/ping/1/start", "/ping/1"]
    text = metrics.read_text()
    assert 'harborctl_rows{job="nightly",outcome="inserted",table="public.orders"} 2.0' in text
    success = next(line for line in text.splitlines() if line.startswith("harborctl_last_success_timestamp_seconds{"))
    (tmp_path / "orders_20260301.csv").write_text("id\nx\n")
    ran(invoke, "--ping", url, "--metrics-file", str(metrics), code=1)
    assert called[2:] == ["/ping/1/start", "/ping/1/fail"]
    assert 'harborctl_exit_code{job="nightly"} 1.0' in metrics.read_text()
    assert success in metrics.read_text()
    assert [path.name for path in tmp_path.glob("h.prom*")] == ["h.prom"]


def test_a_watcher_that_is_down_only_warns(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    result = invoke("load", "items.csv", "--ping", "http://127.0.0.1:9/", "--metrics-file", tmp_path / "no" / "m")
    assert result.code == 0
    assert result.stderr.count("warning: ") == 3
    assert invoke("load", "items.csv", "--ping", "ftp://x").code == 2


@pytest.mark.parametrize("streams", ["> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_streams_that_take_nothing_change_no_exit_code(
    job: Connection, tmp_path: Path, database_url: str, streams: str
) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    arguments = "-m harborctl load items.csv --again --metrics-file no/where"
    environment = {**os.environ, "HARBORCTL_URL": database_url}
    for option in ("", "--json"):
        command = f"exec {shlex.quote(sys.executable)} {arguments} {option} {streams}"
        assert subprocess.run(["sh", "-c", command], env=environment, cwd=tmp_path, check=False).returncode == 0
    assert job.execute("SELECT count(*) FROM items").fetchone() == (2,)


@contextmanager
def answering(answer: bytes, pause: float) -> Iterator[str]:
    """A server that answers byte by byte, whatever is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with listening.accept()[0] as session, suppress(OSError):
                        session.recv(10_000)
                        for byte in answer:
                            session.sendall(bytes([byte]))
                            time.sleep(pause)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"


def test_odd_answers_to_a_ping_only_warn(
    job: Connection, invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    monkeypatch.setattr(notify, "PING_TIMEOUT", 0.5)
    for answer, pause in ((b"Hello\r\n\r\n", 0), (b"HTTP/1.0 2000 A long way\r\n\r\n", 0), (b"H" * 50, 0.1)):
        with answering(answer, pause) as url:
            start = time.monotonic()
            done = invoke("load", "items.csv", "--again", "--json", "--ping", url)
            assert time.monotonic() - start < 4
        assert (done.code, done.stderr.count("warning: --ping"), json.loads(done.stdout)["inserted"]) == (0, 2, 1)
    for url in ("http://", "http://[::1", "http://a:b/", "http://a:99999/"):
        assert invoke("load", "items.csv", "--again", "--ping", url).code == 2
    assert job.execute("SELECT count(*) FROM items").fetchone() == (3,)


def test_sql_after_the_loads(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    def after(sql: str, *arguments: str) -> Run:
        (tmp_path / "harborctl.toml").write_text(JOB.replace("INSERT INTO marks VALUES ('100%')", sql))
        return invoke("run", "nightly", "--date", "2026-03-01", *arguments)

    odd = r"INSERT INTO marks VALUES ('\:a :b %s %% \\ {date}' || current_setting('search_path'))"
    assert after(odd.replace("\\", "\\\\")).code == 0
    assert after(odd.replace("\\", "\\\\"), "--statement-timeout", "9").code == 0
    expected = r'\:a :b %s %% \\ {date}"$user", public'
    assert job.execute("SELECT mark FROM marks").fetchall() == [(expected,), (expected,)]
    assert after("VACUUM marks", "--statement-timeout", "9", "--lock-timeout", "9").code == 0
    late = after("SELECT pg_sleep(9)", "--statement-timeout", "0.2")
    assert (late.code, "statement timeout" in late.stderr) == (1, True)
    for empty in ("", " ; ", "-- nothing", "/* nothing */;"):
        refused = after(empty, "--check")
        assert (refused.code, "jobs.nightly.after" in refused.stderr) == (2, True)


def test_lines_for_collectors(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\nx\n")
    failed = invoke("load", "items.csv", "--log-format", "json")
    ended, error = map(json.loads, failed.stderr.splitlines())
    assert (ended["message"], ended["status"], ended["level"]) == ("load ended", "failed", "info")
    assert (error["level"], error["line"], error["code"]) == ("error", 3, "22P02")
    lines = invoke("run", "nightly", "--date", "2026-03-01", "--log-format=json").stderr.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["orders"]


# -- history


def test_history(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    ran(invoke)
    ran(invoke)
    (tmp_path / "items.csv").write_text("id\nx\n")
    assert invoke("load", "items.csv").code == 1
    loads = json.loads(invoke("history", "--json").stdout)
    assert [load["status"] for load in loads] == ["failed", "loaded", "loaded"]
    for arguments, count in (
        (("--table", "orders"), 2), (("--status", "failed"), 1), (("--since", "1h"), 3), (("--since", "2100-01-01"), 0),
        (("--limit", "1"), 1), (("--table", "public.items", "--status", "loaded"), 0),
    ):  # fmt: skip
        assert len(json.loads(invoke("history", "--json", *arguments).stdout)) == count
    one = json.loads(invoke("history", loads[2]["load_id"][:8], "--json").stdout)
    assert (one["status"], one["files"][0]["rows"]) == ("loaded", 2)
    assert "orders_20260301.csv" in invoke("history", loads[2]["load_id"]).stdout
    assert "invalid input syntax" in invoke("history").stdout
    for wrong in (["nothing"], ["--status", "faild"], ["--since", "soon"]):
        assert invoke("history", *wrong).code == 2


def test_a_killed_load_is_lost(job: Connection, invoke: Invoke) -> None:
    row = (
        "INSERT INTO harborctl.loads (id, target_schema, target_table, mode, writer, status, application_version,"
        " backend_pid, backend_start) SELECT gen_random_uuid(), 'public', 'orders', 'append', 'copy', 'running', '0',"
        " pid, backend_start {} FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    )
    job.execute(row.format(""))
    job.execute(row.format("- interval '1 hour'"))
    statuses = [load["status"] for load in json.loads(invoke("history", "--json").stdout)]
    assert sorted(statuses) == ["lost", "running"]
    assert len(json.loads(invoke("history", "--json", "--status", "lost").stdout)) == 1


def test_a_ledger_that_a_newer_version_has_changed(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    job.execute("UPDATE harborctl.alembic_version SET version_num = 'ledger_9999' WHERE version_num LIKE 'ledger%'")
    result = invoke("load", "items.csv")
    assert (result.code, "newer harborctl" in result.stderr) == (2, True)
    assert job.execute("SELECT count(*) FROM items").fetchone() == (0,)


def test_a_ledger_without_privileges(job: Connection, invoke: Invoke, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("id\n1\n")
    job.execute("DROP ROLE IF EXISTS poor; CREATE ROLE poor; GRANT ALL ON items TO poor")
    try:
        environment = {"PGOPTIONS": "-c role=poor"}
        result = invoke("load", "items.csv", env=environment)
        assert (result.code, "permission denied" in result.stderr) == (1, True)
        assert invoke("load", "items.csv", "--no-ledger", env=environment).code == 0
    finally:
        job.execute("DROP OWNED BY poor; DROP ROLE poor")


# -- the README, and the page about jobs


def test_the_job_of_the_readme(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [document] = [block.partition("```")[0] for block in text.split("```toml")[1:]]
    (tmp_path / "harborctl.toml").write_text(document)
    (tmp_path / "out").mkdir()
    environment = {"ETL_PASSWORD": "x", "HARBORCTL_URL": None}
    result = invoke("run", "nightly", "--check", env=environment)
    assert (result.code, result.stdout) == (0, "job nightly is valid: shop.orders\n")


def test_the_job_and_the_commands_of_the_docs(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    text = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("nightly.md", "databases.md"))
    blocks = [block.partition("\n")[2] for block in text.split("```toml")[1:]]
    documents = [block.partition("```")[0] for block in blocks]
    (tmp_path / "harborctl.toml").write_text("\n".join(reversed(documents)))  # what has no table comes first
    (tmp_path / "reports").mkdir()
    (tmp_path / "out").mkdir()
    environment = {"ETL_PASSWORD": "x", "HARBORCTL_URL": None}
    result = invoke("run", "nightly", "--check", "--date", "2026-03-01", env=environment)
    assert (result.code, result.stdout) == (0, "job nightly is valid: shop.orders, returns\n")
    commands = re.findall(r"(?:&& |bin/)harborctl (run .*)", text)
    assert len(commands) == 2
    for command in commands:
        result = invoke(*command.split(), "--check", env=environment)
        assert result.code == 0, result


def test_a_running_job_hints_in_the_words_of_its_file(job: Connection, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "harborctl.toml").write_text('[[jobs.nightly.loads]]\nsource = "items.csv"\ntable = "items"\n')
    (tmp_path / "items.csv").write_text("id\nx\n")
    result = invoke("run", "nightly", "--json")
    assert 'on_error = "reject" loads the other rows' in result.stderr
    [load] = json.loads(result.stdout)["loads"]
    assert 'on_error = "reject" loads the other rows' in load["error"]["hint"]
    assert "--" not in result.stderr


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Leave out --no-ledger.", "Leave out no_ledger."),
        ("--mode upsert updates that row.", 'mode = "upsert" updates that row.'),
        ("Raise the limit with --max-rejects.", "Raise the limit with max_rejects."),
        ("Use --jobs 2; or --set a=1.", 'Use jobs = 2; or set = { a = "1" }.'),
        ("--lock-timeout and --url stay", "--lock-timeout and --url stay"),
        ("the --on-error", "the on_error"),
    ],
)
def test_words_of_the_file(said: str, told: str) -> None:
    assert in_words_of_the_file(said) == told
