"""The command line without a process of its own: start-up is most of what a small command takes.

What depends on a process (signals, closed streams, terminals, imports) is tested with `harborctl` of conftest.py.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TextIO

import pytest

from harborctl.cli.app import run
from tests.conftest import Run

Invoke = Callable[..., Run]


@pytest.fixture
def invoke(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Invoke:
    """Runs `harborctl` in `tmp_path` on this test's database; gives what a process would.

    With None for `stdin` it reads what `sys.stdin` is.
    """
    monkeypatch.setenv("HARBORCTL_URL", database_url)
    monkeypatch.setenv("HARBORCTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def invoked(*arguments: str | Path, env: dict[str, str | None] | None = None, stdin: str | None = "") -> Run:
        capfd.readouterr()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        with monkeypatch.context() as settings, _piped(stdin) if stdin is not None else nullcontext(sys.stdin) as pipe:
            settings.setattr(sys, "stdin", pipe)
            for name, value in (env or {}).items():
                settings.delenv(name, raising=False) if value is None else settings.setenv(name, value)
            try:
                code = run([str(argument) for argument in arguments])
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)
        out, err = capfd.readouterr()
        return Run(int(code), out, err)

    return invoked


@contextmanager
def _piped(text: str) -> Iterator[TextIO]:
    """A pipe through which this text comes, as from another program."""
    reading, writing = os.pipe()

    def write() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "w", encoding="utf-8") as pipe:
            pipe.write(text)

    with ThreadPoolExecutor(1) as pool, os.fdopen(reading, encoding="utf-8") as pipe:
        pool.submit(write)
        yield pipe
