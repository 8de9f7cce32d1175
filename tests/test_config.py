"""`harborctl.toml`: what it may say, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from harborctl.config import Config, ConnectionConfig, load_config
from harborctl.errors import UsageError


def test_everything_that_it_may_say(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(
        'reports = ["reports", "/srv/reports"]\n[connections.prod]\nurl = "postgresql://etl:s3cret@db/harbor"\n'
    )
    config = load_config(str(file))
    assert config.reports == (tmp_path / "reports", Path("/srv/reports"))
    assert config.connections == {"prod": ConnectionConfig("postgresql://etl:s3cret@db/harbor")}
    assert "s3cret" not in repr(config)


def test_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None) == Config()
    (tmp_path / "harborctl.toml").write_text('[connections.a]\nurl = "postgresql:///a"\n')
    assert list(load_config(None).connections) == ["a"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("conections = {}", "has an unknown key conections", "Did you mean connections?"),
        ("colour = 1", "has an unknown key colour", "There is connections, reports."),
        ("[connections.a]\nurll = 'x'", "has an unknown key connections.a.urll", "Did you mean url?"),
        ("connections = 1", "connections in", None),
        ("[connections]\na = 1", "connections.a in", None),
        ("[connections.a]", "connections.a.url in", None),
        ("[connections.a]\nurl = 1", "connections.a.url in", None),
        ("reports = 'reports'", "reports in", None),
        ("reports = [1]", "reports in", None),
        ("reports = ", "is not TOML", None),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    file = tmp_path / "harborctl.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(str(file))
    assert message in caught.value.message
    assert str(file) in caught.value.message
    assert caught.value.hint == hint


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no configuration file"):
        load_config(str(tmp_path / "missing.toml"))
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(str(tmp_path))
    (tmp_path / "latin.toml").write_bytes(b'reports = ["\xe9"]')
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(str(tmp_path / "latin.toml"))
