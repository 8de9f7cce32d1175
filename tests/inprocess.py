"""The command line without a process of its own: start-up is most of what a small command takes."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from harborctl.cli.app import run
from tests.conftest import Run

Invoke = Callable[..., Run]


@pytest.fixture
def invoke(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Invoke:
    """Runs `harborctl` in `tmp_path` on this test's database; gives what a process would."""
    monkeypatch.setenv("HARBORCTL_URL", database_url)
    monkeypatch.setenv("HARBORCTL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def invoked(*arguments: str | Path, env: dict[str, str | None] | None = None) -> Run:
        capfd.readouterr()
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        with monkeypatch.context() as settings:
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
