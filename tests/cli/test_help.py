"""What `--help` shows."""

from __future__ import annotations

import pytest

from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


def test_the_help_of_load_fits_a_screen(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    short, whole = invoke("load", "--help"), invoke("load", "--help-all")
    assert (short.code, whole.code) == (0, 0)
    assert len(short.stdout.splitlines()) <= 40
    assert "--help-all shows all options" in short.stdout
    assert "--skip-lines" not in short.stdout
    assert "--skip-lines" in whole.stdout
    # Nothing of the short one is left when the same process shows the long one.
    assert "--help-all shows all options" not in whole.stdout
    assert "\\[default: the primary key]" not in whole.stdout
    assert "[default: the primary key]" in " ".join(whole.stdout.replace("│", " ").split())


@pytest.mark.parametrize("command", ["load", "query", "count", "stock", "doctor"])
def test_flags_have_no_type(invoke: Invoke, command: str) -> None:
    assert "<bool>" not in invoke(command, "--help").stdout
