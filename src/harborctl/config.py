"""Reads `harborctl.toml`: named connections, the folders with reports, and jobs, which `jobs.file` gives a meaning.

::

    reports = ["reports"]            # relative to this file

    [connections.production]
    url = "postgresql://etl:${ETL_PASSWORD}@db/harbor"
    default = true                   # where nothing else says which database
    pool_size = 10                   # as --pool-size; so max_overflow, pool_timeout and pool_recycle

    [[jobs.nightly.loads]]
    source = "feeds/orders_{date:%Y%m%d}.csv"
    table = "shop.orders"

It reads that one file. A secret has no place in it: `${NAME}` in a URL takes it from the environment.
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

from harborctl.errors import UsageError
from harborctl.model import PoolOptions
from harborctl.nearest import nearest_or_all
from harborctl.options import declared, filled
from harborctl.plain_text import SECRETS

DEFAULT_NAME = "harborctl.toml"

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class ConnectionConfig:
    """One database. `url` as the file has it, without any secret."""

    url: str = field(repr=False)
    pool: PoolOptions = field(default_factory=PoolOptions)

    def resolved(self, name: str) -> str:
        """The URL with what the environment says in it, which may be a password: it is never shown.

        Raises:
            UsageError: the environment lacks a variable.
        """

        def value(match: re.Match[str]) -> str:
            if match[1] not in os.environ:
                raise UsageError(
                    f"connection {name} takes ${{{match[1]}}} from the environment, which lacks it",
                    code="no_such_variable",
                    hint=f"Set {match[1]}.",
                )
            text = os.environ[match[1]]
            return text if match[0] == self.url else quote(text, safe="")

        return _VARIABLE.sub(value, self.url)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file; without a file, everything empty. `reports` are absolute paths, in the order of search.

    Attributes:
        jobs: as they stand there; only `harborctl run` looks into them.
        file: where all this was read.
        default: the connection that says `default = true`, for commands that are given no other.
    """

    connections: dict[str, ConnectionConfig] = field(default_factory=dict)
    reports: tuple[Path, ...] = ()
    jobs: dict[str, Any] = field(default_factory=dict)
    file: Path = Path(DEFAULT_NAME)
    default: str | None = None


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


def _config(document: dict[str, Any], file: Path) -> Config:
    _require_known(document, ("connections", "jobs", "reports"), "", file)
    connections, defaults = {}, list[str]()
    for name, settings in _typed(document, "connections", dict, "a table of tables", file, default={}).items():
        place = f"connections.{name}"
        if not isinstance(settings, dict):
            raise _wrong_type(place, "a table", file)
        _require_known(settings, ("default", "url", *_POOL), f"{place}.", file)
        if not isinstance(settings.get("url"), str):
            raise _wrong_type(f"{place}.url", "a string", file)
        _refuse_password(settings["url"], f"{place}.url", file)
        connections[name] = ConnectionConfig(settings["url"], _pool(settings, place, file))
        if _typed(settings, "default", bool, "true or false", file, default=False):
            defaults.append(name)
    if len(defaults) > 1:
        raise UsageError(
            f"{file} has several default connections: {', '.join(defaults)}",
            code="bad_config",
            hint="Leave default = true at one of them.",
        )
    folders = _typed(document, "reports", list, "a list of folders", file, default=[])
    if not all(isinstance(folder, str) for folder in folders):
        raise _wrong_type("reports", "a list of folders", file)
    home = file.absolute().parent
    jobs = _typed(document, "jobs", dict, "a table of tables", file, default={})
    return Config(connections, tuple(home / folder for folder in folders), jobs, file, next(iter(defaults), None))


_POOL = {option.key: option for option in declared(PoolOptions)}


def _pool(settings: dict[str, Any], place: str, file: Path) -> PoolOptions:
    said = {key: value for key, value in settings.items() if key in _POOL}
    for key, value in said.items():
        whole, least = int in get_args(_POOL[key].kind), _POOL[key].option.least or 0
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or value < least:
            raise _wrong_type(f"{place}.{key}", f"a {'whole ' if whole else ''}number, {least} or more", file)
    return filled(PoolOptions, said)


def _refuse_password(url: str, key: str, file: Path) -> None:
    """Files are copied, shown and committed; a password in one is soon known."""
    _, _, rest = url.partition("://")
    user, at, _ = rest.rpartition("@")
    secrets = [user.partition(":")[2]] if at else []
    secrets += re.findall(rf"(?i)(?:^|[?&\s])(?:{SECRETS})\s*=\s*([^&\s]*)", url)
    if any(secret and not _VARIABLE.fullmatch(secret) for secret in secrets):
        raise UsageError(
            f"{key} in {file} holds a password",
            code="password_in_file",
            hint="Write ${NAME} in its place and set NAME in the environment, or keep it in ~/.pgpass.",
        )


def _typed(document: dict[str, Any], key: str, kind: type, called: str, file: Path, *, default: Any) -> Any:
    value = document.get(key, default)
    if not isinstance(value, kind):
        raise _wrong_type(key, called, file)
    return value


def _require_known(table: dict[str, Any], known: tuple[str, ...], prefix: str, file: Path) -> None:
    for key in table:
        if key not in known:
            raise UsageError(
                f"{file} has an unknown key {prefix}{key}", code="bad_config", hint=nearest_or_all(key, known)
            )


def _wrong_type(key: str, called: str, file: Path) -> UsageError:
    return UsageError(f"{key} in {file} must be {called}", code="bad_config")
