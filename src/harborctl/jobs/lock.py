"""Of one job only one run at a time in one database: appends take no locks of their own.

The lock belongs to the session that loads, so that a job needs one only, and whoever ends that session ends what it was
about to commit. A pooler gives each transaction another session: behind one, a transaction of its own holds the lock.
Whichever it is, an administrator, a timeout or a restart can end it, so it is looked after before each part of the job.
"""

from __future__ import annotations

import logging
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, func, select, text
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translated
from harborctl.db.sessions import is_pooled, require_sessions
from harborctl.errors import ConnectionFailed, HarborctlError, LockHeld
from harborctl.load.session.locks import Until, stay_open, take_named
from harborctl.load.session.retry import pause
from harborctl.model import Lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

# "hrbj" in ASCII: beside the locks of targets, those of jobs.
JOBS = 0x6872626A

# How often a server that is away is asked again: it takes seconds to restart.
RETRIES = 3

# Also under the user's search path: qualified, and without an operator.
_SESSION = (
    "SELECT pid, extract(epoch FROM backend_start) FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid())"
)
_TRY = "SELECT pg_catalog.pg_try_advisory_lock(%s::pg_catalog.int4, %s::pg_catalog.int4)"
_HAS_IT = text("""
    SELECT EXISTS (
        SELECT FROM pg_locks AS locks, pg_stat_get_activity(locks.pid) AS activity
        WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 2
          AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND locks.classid = :namespace AND locks.objid = :number
          AND locks.pid = :pid AND extract(epoch FROM activity.backend_start) = :start
    )
""")

TAKEN_AGAIN = "the session that held the lock of job %s was ended; the lock was taken again"

logger = logging.getLogger("harborctl")


@contextmanager
def job_lock(engine: Engine, name: str, lock: Lock) -> Iterator[JobLock]:
    """Inside this block no other run of the job has it, in this database.

    Raises:
        LockHeld: another has, and is not to be waited for.
    """
    with translated():
        own = JobLock(engine, name)
        own.take(lock)
    try:
        yield own
        own.look_back()
    finally:
        own.let_go()


@dataclass(slots=True)
class JobLock:
    """The lock of a job that runs."""

    engine: Engine
    name: str
    _holder: Connection | None = field(default=None, init=False)
    _session: tuple[int, Any] | None = field(default=None, init=False)

    @property
    def _number(self) -> int:
        return zlib.crc32(self.name.encode()) - 2**31

    def take(self, lock: Lock) -> None:
        """Have the lock from here on.

        Raises:
            LockHeld: another run has it, and is not to be waited for.
        """
        reason = f"job {self.name} runs already"
        with self.engine.begin() as connection:
            pooled = is_pooled(connection)
            if not pooled:
                take_named(connection, JOBS, self._number, lock, reason, Until.SESSION)
                # While worker processes load, it may be idle for long.
                connection.execute(select(func.set_config("idle_session_timeout", "0", False)))
                row = connection.execute(text(_SESSION)).one()
                self._session = (row[0], row[1])
        if pooled:
            require_sessions(self.engine, 2, "a job behind a pooler", "Without a pooler it needs one.")
            holder = self.engine.connect()
            try:
                holder.begin()
                stay_open(holder)
                take_named(holder, JOBS, self._number, lock, reason)
            except BaseException:  # Ctrl-C while it waits, too
                _close(holder)
                raise
            self._holder = holder
        elif not event.contains(self.engine, "connect", self._on_connect):
            event.listen(self.engine, "connect", self._on_connect)

    def _on_connect(self, driver: Any, _record: object) -> None:
        """A new session, as a load opens one that begins anew: if the lock went with an old one, it is taken here."""
        if self._session is None:
            return
        with driver.cursor() as cursor:
            cursor.execute(_TRY, (JOBS, self._number))
            if cursor.fetchone()[0]:
                cursor.execute("SET idle_session_timeout = 0")
                cursor.execute(_SESSION)
                self._session = cursor.fetchone()
                logger.warning(TAKEN_AGAIN, self.name)
        driver.commit()

    def keep(self) -> None:
        """Before a part of the job: see that the lock is still there, or take it again.

        Raises:
            LockHeld: it was lost, and another run has it by now.
            ConnectionFailed: the server is away.
        """
        for failures in range(1, RETRIES + 2):
            try:
                with translated():
                    self._keep()
            except ConnectionFailed as error:
                if failures > RETRIES:
                    raise
                logger.warning("the lock of job %s cannot be looked after: %s", self.name, error.message)
                time.sleep(pause(failures))
            else:
                return

    def _keep(self) -> None:
        if self._is_there():
            return
        self.let_go()
        try:
            self.take(Lock.FAIL)
        except LockHeld as held:
            raise LockHeld(
                f"the session that held the lock of job {self.name} was ended, and another run has begun meanwhile:"
                f" {held.message}",
                code="lock_lost",
                hint="What was not begun was left to that run. Look who ended the session: an administrator, a"
                " timeout of the server or of a pooler.",
            ) from held
        logger.warning(TAKEN_AGAIN, self.name)

    def _is_there(self) -> bool:
        if self._holder is not None:
            if self._holder.invalidated:  # by Ctrl-C, in the midst of a statement
                return False
            try:
                self._holder.execute(text("SELECT 1"))
            except DBAPIError:
                return False
            return True
        if self._session is None:
            return False
        pid, start = self._session
        # Locks are shown by numbers without a sign.
        lock = {"namespace": JOBS, "number": self._number % 2**32, "pid": pid, "start": start}
        with self.engine.begin() as connection:
            return bool(connection.execute(_HAS_IT, lock).scalar_one())

    def look_back(self) -> None:
        """At the end: whether the last part was done alone."""
        with suppress(DBAPIError, HarborctlError):
            if self._is_there():
                return
        logger.warning(
            "the session that held the lock of job %s was ended: another run may have begun before this one was done",
            self.name,
        )

    def let_go(self) -> None:
        """Others may run the job. Safe to call twice."""
        if self._holder is not None:
            _close(self._holder)
            self._holder = None
        self._session = None


def _close(connection: Connection) -> None:
    """Its transaction has nothing in it: that it is gone already is no failure."""
    with suppress(DBAPIError):
        connection.close()
