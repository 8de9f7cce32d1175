"""Reads `harborctl.toml`: named connections, and the folders with reports.

::

    reports = ["reports"]            # relative to this file

    [connections.production]
    url = "postgresql://etl@db/harbor"

It reads that one file and nothing else; what the environment says is not its business.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harborctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_NAME = "harborctl.toml"


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """One database. The URL may hold a password and is therefore never shown."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file; without a file, everything empty. `reports` are absolute paths, in the order of search."""

    connections: dict[str, ConnectionConfig] = field(default_factory=dict)
    reports: tuple[Path, ...] = ()


def load_config(path: str | None) -> Config:
    """Read the file at `path`; None means `./harborctl.toml`, which may be missing.

    Raises:
        UsageError: the file is missing, is not TOML, or has a key or a type that does not belong there.
    """
    file = Path(path or DEFAULT_NAME)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is None:
            return Config()
        raise UsageError(f"there is no configuration file {file}", code="no_such_file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"the configuration file {file} cannot be read: {reason}", code="bad_config") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}", code="bad_config") from error
    return _config(document, file)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the known name which `name` was probably meant to be, or all of them."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean {close[0]}?"
    return f"There is {', '.join(names)}." if names else None


def _config(document: dict[str, Any], file: Path) -> Config:
    _require_known(document, ("connections", "reports"), "", file)
    connections = {}
    for name, settings in _typed(document, "connections", dict, "a table of tables", file, default={}).items():
        place = f"connections.{name}"
        if not isinstance(settings, dict):
            raise _wrong_type(place, "a table", file)
        _require_known(settings, ("url",), f"{place}.", file)
        if not isinstance(settings.get("url"), str):
            raise _wrong_type(f"{place}.url", "a string", file)
        connections[name] = ConnectionConfig(settings["url"])
    folders = _typed(document, "reports", list, "a list of folders", file, default=[])
    if not all(isinstance(folder, str) for folder in folders):
        raise _wrong_type("reports", "a list of folders", file)
    home = file.absolute().parent
    return Config(connections, tuple(home / folder for folder in folders))


def _typed(document: dict[str, Any], key: str, kind: type, called: str, file: Path, *, default: Any) -> Any:
    value = document.get(key, default)
    if not isinstance(value, kind):
        raise _wrong_type(key, called, file)
    return value


def _require_known(table: dict[str, Any], known: tuple[str, ...], prefix: str, file: Path) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{file} has an unknown key {prefix}{key}", code="bad_config", hint=nearest(key, known))


def _wrong_type(key: str, called: str, file: Path) -> UsageError:
    return UsageError(f"{key} in {file} must be {called}", code="bad_config")
