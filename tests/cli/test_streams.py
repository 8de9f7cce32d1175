"""What is written on stdout: one document and no more, and a plain error where it cannot be written."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from tests.inprocess import Invoke, invoke
from tests.load.conftest import database, wait_for

__all__ = ["database", "invoke"]

COMMANDS = (
    "--help", "--version", "report", "report load_history", "report load_history --format csv", "query 'SELECT 1'",
    "count harborctl.*", "tables", "history", "doctor", "migrate current", "migrate sql", "stock list", "db status",
)  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_a_full_stdout(
    invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: list[str]
) -> None:
    for command in COMMANDS:
        if shape and ("--" in command or command == "migrate sql"):
            continue
        with Path("/dev/full").open("w") as full:
            monkeypatch.setattr(sys, "stdout", full)
            done = invoke(*shlex.split(command), *shape)
            monkeypatch.undo()
            monkeypatch.setenv("HARBORCTL_HOME", str(tmp_path / "home"))
        assert done.code == 1, (command, done)
        assert done.stderr.startswith("error: cannot write standard output: No space left on device\nhint: "), command


@pytest.mark.parametrize("command", ["load items.csv", "history", "doctor", "migrate current", "run nightly"])
def test_what_fails_after_the_answer_adds_no_second_one(
    invoke: Invoke, database: psycopg.Connection[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    database.execute("CREATE TABLE items (id integer)")
    (tmp_path / "items.csv").write_text("id\n1\n")
    (tmp_path / "harborctl.toml").write_text('[[jobs.nightly.loads]]\nsource = "items.csv"\ntable = "items"\n')

    dispose = sqlalchemy.Engine.dispose

    def interrupted(engine: sqlalchemy.Engine) -> None:
        dispose(engine)
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlalchemy.Engine, "dispose", interrupted)
    done = invoke(*command.split(), "--json")
    assert json.loads(done.stdout)
    assert done.code == 130
    assert done.stderr == "error: interrupted\n"


@pytest.mark.parametrize("shape", [[], ["--json"]])
def test_ctrl_c_in_a_running_count(database: psycopg.Connection[Any], database_url: str, shape: list[str]) -> None:
    database.execute("CREATE VIEW slow AS SELECT pg_sleep(60)::text")
    command = [sys.executable, "-m", "harborctl", "count", "slow", "--exact", "--url", database_url, *shape]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    wait_for(database, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    process.send_signal(signal.SIGINT)
    stopped = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - stopped < 5
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert (json.loads(out)["status"] == "interrupted") if shape else out == ""
    wait_for(database, "SELECT (count(*) = 0)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
