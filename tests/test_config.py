"""`harborctl.toml`: what it may say, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from harborctl.config import Config, ConnectionConfig, load_config
from harborctl.errors import UsageError

IN_ENVIRONMENT = "Write ${NAME} in its place and set NAME in the environment, or keep it in ~/.pgpass."


def test_everything_that_it_may_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.toml"
    file.write_text(
        'reports = ["reports", "/srv/reports"]\n[connections.prod]\nurl = "postgresql://etl:${SECRET}@db/harbor"\n'
        "[jobs.nightly]\nloads = []\n"
    )
    config = load_config(str(file))
    assert config.reports == (tmp_path / "reports", Path("/srv/reports"))
    assert config.connections == {"prod": ConnectionConfig("postgresql://etl:${SECRET}@db/harbor")}
    assert config.jobs == {"nightly": {"loads": []}}
    monkeypatch.setenv("SECRET", "p@ss:word")
    assert config.connections["prod"].resolved("prod") == "postgresql://etl:p%40ss%3Aword@db/harbor"
    monkeypatch.delenv("SECRET")
    with pytest.raises(UsageError, match=r"connection prod takes \$\{SECRET\} from the environment"):
        config.connections["prod"].resolved("prod")


def test_a_url_from_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:b@c/d")
    assert ConnectionConfig("${DATABASE_URL}").resolved("x") == "postgresql://a:b@c/d"


def test_found_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(None) == Config()
    (tmp_path / "harborctl.toml").write_text('[connections.a]\nurl = "postgresql:///a"\n')
    assert list(load_config(None).connections) == ["a"]


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("conections = {}", "has an unknown key conections", "Did you mean connections?"),
        ("colour = 1", "has an unknown key colour", "There is connections, jobs, reports."),
        ("[connections.a]\nurll = 'x'", "has an unknown key connections.a.urll", "Did you mean url?"),
        ("connections = 1", "connections in", None),
        ("[connections]\na = 1", "connections.a in", None),
        ("[connections.a]", "connections.a.url in", None),
        ("[connections.a]\nurl = 1", "connections.a.url in", None),
        ("[connections.a]\nurl = 'postgresql://u:secret@h/d'", "connections.a.url in", IN_ENVIRONMENT),
        ("[connections.a]\nurl = 'postgresql://h/d?password=secret'", "holds a password", IN_ENVIRONMENT),
        ("[connections.a]\nurl = 'postgresql://h/d?x=1&sslpassword=s'", "holds a password", IN_ENVIRONMENT),
        ("[connections.a]\nurl = 'postgresql://h/d?oauth_client_secret=s'", "holds a password", IN_ENVIRONMENT),
        ("[connections.a]\nurl = 'postgresql://h/d?scram_client_key=s'", "holds a password", IN_ENVIRONMENT),
        ("[connections.a]\nurl = 'host=h password = s'", "holds a password", IN_ENVIRONMENT),
        ("[jobs.a]\nloads = []\n[jobs.a]", "(at line 3, column 8)", None),
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
