"""The Makefile and the demo: they keep to the checkout, wherever it lies and whatever the environment says.

The short form runs them on programs that are installed already. With HARBORCTL_TEST_SETUP=1 they install what they
need, as a plain user where the tests run as root, and run all tests once: that takes half an hour.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harborctl.embedded.server import MARK, Server
from tests.db.dumps import dumped

ROOT = Path(__file__).parents[1]
LONG = os.environ.get("HARBORCTL_TEST_SETUP")
# A name that a shell, make and a URL all read otherwise.
NAME = "it's a «Prüfung» $HOME, 50%"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets, and open to other users."""
    made = Path(tempfile.mkdtemp(prefix="harborctl-setup-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def checkout(place: Path, *, installed: bool = True) -> Path:
    """A copy of this checkout. `installed` as if `make` had done that in it, with the programs of the one here."""
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if files.returncode:
        pytest.skip("needs a checkout of git")
    for name in files.stdout.splitlines():
        if (ROOT / name).exists():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    if installed:
        venv = place / ".venv"
        venv.mkdir()
        for name in ("bin", "lib", "pyvenv.cfg"):
            (venv / name).symlink_to(Path(sys.prefix) / name)
        (venv / "made").write_text(f"{place}\n")
        for stamp in ("installed", "installed-dev"):
            (venv / stamp).touch()
    return place


def content(folder: Path) -> dict[str, bytes]:
    """Every file below, with its bytes."""
    files = [path for path in folder.rglob("*") if path.is_file() and "/.cache/" not in str(path)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def users_home(folder: Path) -> Path:
    """A home with databases of ours, in the default place and in HARBORCTL_HOME, and with folders of our names."""
    for place in (".local/share/harborctl", "kept", "xdg/harborctl"):
        cluster = folder / place / "postgres"
        cluster.mkdir(parents=True)
        (cluster / "PG_VERSION").write_text("18\n")
        (cluster / "postgresql.conf").write_text(f"{MARK}\n")
        (folder / place / "keep").touch()
    (folder / ".venv").mkdir()
    (folder / ".venv" / "precious").write_text("mine")
    return folder


def every_way(home: Path, url: str) -> dict[str, str]:
    """An environment in which each variable leads to the user's things."""
    (home / "service.conf").write_text("[warehouse]\nhost=/nowhere\n")
    host = url.rpartition("host=")[2]
    return {
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "xdg"),
        "HARBORCTL_HOME": str(home / "kept"),
        "HARBORCTL_URL": url,
        "DATABASE_URL": url,
        "PGHOST": host,
        "PGUSER": "postgres",
        "PGDATABASE": url.partition("@/")[2].partition("?")[0],
        "PGSERVICE": "warehouse",
        "PGSERVICEFILE": str(home / "service.conf"),
        "PGOPTIONS": "-cdefault_transaction_read_only=on",
        "PIP_USER": "1",
        "PIP_TARGET": str(home / "target"),
        "VENV": str(home / ".venv"),
        "BIN": str(home / ".venv" / "bin"),
        "TESTS": str(home),
    }


def make(place: Path, *arguments: str, env: dict[str, str], user: str | None = None) -> subprocess.Popen[str]:
    kept = {name: os.environ[name] for name in os.environ if name in {"PATH", "LANG"} or name.startswith("PIP_")}
    return subprocess.Popen(
        ["make", *arguments],
        cwd=place,
        env=kept | env,
        user=user,
        group=user and pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def made(place: Path, *arguments: str, env: dict[str, str], user: str | None = None) -> str:
    """What `make` says; it succeeds."""
    with make(place, *arguments, env=env, user=user) as process:
        said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def interrupted(place: Path, *arguments: str, env: dict[str, str], at: str, user: str | None = None) -> None:
    """`make`, ended by Ctrl-C once it has said `at`."""
    with make(place, *arguments, env=env, user=user) as process:
        assert process.stdout
        for line in process.stdout:
            if at in line:
                time.sleep(0.2)
                os.killpg(process.pid, signal.SIGINT)
                break
        rest = process.stdout.read()
    assert process.returncode, rest


def test_nothing_of_the_users_is_touched(folder: Path, database_url: str) -> None:
    home, place = users_home(folder / "home"), checkout(folder / NAME)
    env = every_way(home, database_url)
    (place / "harborctl.toml").write_text('[connections.default]\nurl = "${HARBORCTL_URL}"\n')
    before, rows = content(home), dumped(database_url)
    interrupted(place, "demo", env=env, at="load samples/variants.csv")
    said = made(place, "demo", env=env)
    assert "│ inserted  │    6 │" in said  # as the first time, though the one before got half way
    assert not Server(place / ".demo").state().kept
    # The line that it tells people to copy leads a shell there, and a second demo with it starts over.
    [export] = [line.strip() for line in said.splitlines() if "export HARBORCTL_HOME" in line]
    script = f'{export}; printf %s "$HARBORCTL_HOME"'
    assert subprocess.check_output(["sh", "-c", script], text=True) == str(place / ".demo")
    assert "1 passed" in made(place, "-o", "lint", "test", "TESTS=-n0 tests/counts/test_counts.py::test_exact", env=env)
    made(place, "clean", env=env)
    assert not (place / ".demo").exists()
    assert not (place / ".venv").exists()
    assert (Path(sys.prefix) / "bin" / "harborctl").exists()
    assert content(home) == before
    assert dumped(database_url) == rows


def commands(place: Path, target: str, *settings: str) -> str:
    """What `make` would do."""
    return made(place, "-n", *settings, target, env={})


def test_a_virtual_environment_that_is_ours_is_made_anew_where_it_must(folder: Path) -> None:
    place = checkout(folder / "a")
    assert "venv" not in commands(place, "demo").replace("BIN=.venv/bin", "")
    moved = place.rename(folder / NAME)
    assert ".venv was made for another folder" in commands(moved, "demo")
    assert "rm -rf .venv\n" in commands(moved, "demo")
    (moved / ".venv" / "made").write_text(f"{moved}\n")
    assert "rm -rf" not in commands(moved, "demo")
    (moved / ".venv" / "installed").unlink()  # as an interrupted one leaves it
    assert "rm -rf .venv\n" in commands(moved, "demo")
    (moved / ".venv" / "made").unlink()
    assert "rm -rf" not in commands(moved, "demo")


def test_clean_leaves_what_make_has_not_made(folder: Path) -> None:
    place = checkout(folder / "a")
    (place / ".venv" / "made").unlink()
    (place / "dist").mkdir()
    (place / ".demo" / "postgres").mkdir(parents=True)
    (place / ".demo" / "postgres" / "postmaster.pid").touch()
    refused = make(place, "clean", env={})
    said, _ = refused.communicate()
    assert refused.returncode
    assert "is not a database that harborctl has made: it is left alone" in said
    shutil.rmtree(place / ".demo" / "postgres")
    assert ".venv stays: make has not made it." in made(place, "clean", env={})
    assert (place / ".venv" / "bin").exists()
    assert (place / "dist").exists()
    (place / ".demo" / "postgres").mkdir(parents=True)
    (place / ".demo" / "postgres" / "postmaster.pid").touch()
    (place / ".venv" / "bin").unlink()
    refused = make(place, "clean", env={})
    said, _ = refused.communicate()
    assert refused.returncode
    assert "run make demo, then make clean" in said


def test_an_older_python_is_told_in_one_sentence(folder: Path) -> None:
    place = checkout(folder / "a", installed=False)
    old = folder / "python3.9"
    # What make runs first is the check; this runs it as Python 3.9 would.
    script = "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[1])"
    old.write_text(f'#!/bin/sh\nshift\nexec {shlex.quote(sys.executable)} -c "{script}" "$1"\n')
    old.chmod(0o755)
    process = make(place, f"PYTHON={old}", "demo", env={})
    said, _ = process.communicate()
    assert process.returncode
    assert said.splitlines()[0] == (
        f"error: harborctl needs Python 3.11 or later, and {old} is 3.9: name another one with make PYTHON=python3.11"
    )
    assert not (place / ".venv").exists()


# The long form.


@pytest.mark.skipif(not LONG, reason="takes half an hour; HARBORCTL_TEST_SETUP=1 runs it")
def test_all_of_it_for_a_plain_user(folder: Path, database_url: str) -> None:
    user = "nobody" if os.geteuid() == 0 else None
    python = "PYTHON=/usr/bin/python3" if user else f"PYTHON={sys.executable}"
    home = users_home(folder / "home")
    # PostgreSQL's own initdb calls a program by way of a shell, which knows no folder with a $ in it.
    plain = NAME.replace("$HOME", "ß")
    first, second = (checkout(folder / name / plain, installed=False) for name in ("a", "b"))
    env = every_way(home, database_url)
    if user:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    before, rows = content(home), dumped(database_url)
    # In two at once, one of them without HOME, after one that was interrupted while pip was at work.
    interrupted(first, python, "demo", env=env, at="pip install", user=user)
    nowhere = {name: value for name, value in env.items() if name not in {"HOME", "XDG_DATA_HOME"}}
    both = [make(first, python, "demo", env=env, user=user), make(second, python, "demo", env=nowhere, user=user)]
    for process, said in [(process, process.communicate()[0]) for process in both]:
        assert process.returncode == 0, said
        assert "│ inserted  │    6 │" in said
    moved = first.rename(first.with_name("moved, too"))
    said = made(moved, python, "demo", env=env, user=user)
    assert "it is made anew" in said
    assert "│ inserted  │    6 │" in said
    made(second, python, "test", env=env, user=user)
    for place in (moved, second):
        made(place, "clean", env=env, user=user)
        assert not (place / ".venv").exists()
        assert not (place / ".demo").exists()
    assert content(home) == before
    assert dumped(database_url) == rows


def test_the_source_distribution_holds_what_its_readme_names(folder: Path) -> None:
    import tomllib

    kept = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    readme = (ROOT / "README.md").read_text()
    tops = {f"/{path.name}" for path in ROOT.iterdir() if f"{path.name}/" in readme or f"]({path.name})" in readme}
    assert {*tops, "/Makefile", "/constraints.txt"} <= set(kept)
