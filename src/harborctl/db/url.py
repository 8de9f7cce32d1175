"""Which database a command means: the order of CONTRACT.md, URLs as libpq reads them, and names without passwords.

libpq parses the URL, so that everything it knows (several hosts, sockets, services, sslmode, …) works as in psql.
Its complaints are not passed on: they quote the URL, and with it the password. This module never connects.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from harborctl.config import load_config
from harborctl.errors import UsageError
from harborctl.model import PoolOptions
from harborctl.nearest import nearest_or_all

if TYPE_CHECKING:
    from harborctl.config import Config
    from harborctl.model import ConnectionOptions

# Of libpq's environment, what says where to go. PGPASSWORD, PGSSLMODE and the like only say how.
# https://www.postgresql.org/docs/current/libpq-envars.html
LIBPQ_PLACES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")

logger = logging.getLogger("harborctl")

_SCHEME = re.compile(r"(postgres|postgresql)(\+psycopg)?://")
_FORM = "Write postgresql://user@host:5432/database, with special characters of the password percent-encoded."
# What libpq's keywords may be; of a value that is none of these it says so only when it connects.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "gssencmode": ("disable", "prefer", "require"),
    "channel_binding": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Attributes:
        parameters: libpq's keywords; what is missing libpq takes from its environment. May hold a password.
        display: the URL that people see; no password.
        pgbouncer: a pooler stands in between, and hands every transaction to another session.
        pool: what the connection of the configuration file says about the pool.
    """

    parameters: dict[str, str] = field(repr=False)
    display: str
    pgbouncer: bool = False
    pool: PoolOptions = field(default_factory=PoolOptions)


def resolve(options: ConnectionOptions) -> Address | None:
    """The database that the command was given; None means the embedded one.

    Raises:
        UsageError: a bad URL, or a connection that the configuration lacks. Never quotes the URL.
    """
    address = _named_database(options)
    _check_environment(address.parameters if address else {})
    return address


def _named_database(options: ConnectionOptions) -> Address | None:
    if options.url:
        return parse(options.url, "--url")
    if options.name:
        return _named(options.name, load_config(options.config))
    if url := os.environ.get("HARBORCTL_URL"):
        return parse(url, "HARBORCTL_URL")
    if os.environ.get("DATABASE_URL"):
        # Many programs find it in their environment: rows shall not go where nobody sent them.
        logger.warning("DATABASE_URL is not read; HARBORCTL_URL or --url says which database")
    if any(os.environ.get(name) for name in LIBPQ_PLACES):
        return Address({}, display({}), pgbouncer=_pgbouncer(None))
    config = load_config(options.config)
    return _named(config.default, config) if config.default else None


def _named(name: str, config: Config) -> Address:
    if name not in config.connections:
        raise UsageError(
            f"the configuration has no connection {name}",
            code="no_such_connection",
            hint=nearest_or_all(name, config.connections)
            or f'Add [connections.{name}] with url = "postgresql://…" to harborctl.toml.',
        )
    found = config.connections[name]
    return replace(parse(found.resolved(name), f"connection {name}"), pool=found.pool)


def parse(url: str, source: str) -> Address:
    """Read an URL; `source` says in messages where it stands."""
    url = url.strip()
    scheme = _SCHEME.match(url)
    if not scheme:
        raise UsageError(f"the URL of {source} does not start with postgresql://", code="bad_url", hint=_FORM)
    before, _, query = url[scheme.end() :].partition("?")
    place, _, name = before.partition("/")
    # A bare / ? or @ in the password moves every border after it, and a piece of it would pass for a host or a name.
    if place.count("@") > 1 or "@" in name or "@" in query:
        raise UsageError(f"the URL of {source} has an @ out of place", code="bad_url", hint=_FORM)
    kept, pgbouncer = _split_query(query, source)
    try:
        parameters = conninfo_to_dict(f"postgresql://{before}" + (f"?{'&'.join(kept)}" if kept else ""))
    except psycopg.Error:
        raise UsageError(f"the URL of {source} is malformed", code="bad_url", hint=_FORM) from None
    texts = {keyword: str(value) for keyword, value in parameters.items()}
    _check_values(texts, f"the URL of {source}")
    return Address(texts, display(texts), pgbouncer=_pgbouncer(pgbouncer))


def _split_query(query: str, source: str) -> tuple[list[str], bool | None]:
    """The query's parts that are libpq's, and whether `pgbouncer` is asked for."""
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}
    kept = []
    pgbouncer: bool | None = None
    for part in filter(None, query.split("&")):
        keyword, _, value = part.partition("=")
        if keyword == "pgbouncer":
            pgbouncer = _boolean(value, f"pgbouncer in the URL of {source}")
        elif keyword in known:
            kept.append(part)
        else:
            raise UsageError(
                f"the URL of {source} has an unknown parameter {keyword}",
                code="bad_url",
                hint=nearest_or_all(keyword, known | {"pgbouncer"}),
            )
    return kept, pgbouncer


def _check_values(parameters: dict[str, str], source: str) -> None:
    for port in filter(None, parameters.get("port", "").split(",")):
        if not (port.isdecimal() and 0 < int(port) < 65536):
            raise UsageError(f"{source} has a port that is not a port number", code="bad_url", hint=_FORM)
    if not re.fullmatch(r"-?\d+", parameters.get("connect_timeout", "0")):
        raise UsageError(f"connect_timeout in {source} is not a number of seconds", code="bad_url")
    for keyword, choices in _CHOICES.items():
        if (value := parameters.get(keyword)) and value not in choices:
            raise UsageError(
                f"{keyword} in {source} is none of {', '.join(choices)}",
                code="bad_url",
                hint=nearest_or_all(value, choices),
            )


def _check_environment(given: dict[str, str]) -> None:
    """Of libpq's variables, those that complete `given`: libpq would refuse them when it connects."""
    for option in pq.Conninfo.get_defaults():
        variable, keyword = (option.envvar or b"").decode(), option.keyword.decode()
        if option.val and variable in os.environ and keyword not in given:
            _check_values({keyword: option.val.decode(errors="replace")}, variable)


def _pgbouncer(in_url: bool | None) -> bool:
    if in_url is not None:
        return in_url
    return _boolean(os.environ.get("HARBORCTL_PGBOUNCER") or "0", "HARBORCTL_PGBOUNCER")


def _boolean(text: str, name: str) -> bool:
    if text.lower() in _YES | _NO:
        return text.lower() in _YES
    raise UsageError(f"{name} is neither true nor false", code="bad_url")


def display(parameters: dict[str, str]) -> str:
    """An URL with user, host, port, database and service, each from `parameters` or else where libpq finds it."""
    # libpq's defaults: its environment, a service that PGSERVICE names, and the system user.
    found = {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val}
    service = parameters.get("service")
    if service:  # only libpq reads the file of services, when it connects
        found = {}
    found |= parameters
    user = found.get("user", "")
    hosts = (found.get("host") or found.get("hostaddr") or "").split(",")
    ports = found.get("port", "").split(",")
    if len(ports) < len(hosts):
        ports *= len(hosts)
    if any(host.startswith(("/", "@")) for host in hosts):  # no place for a folder before the path of a URL
        network = []
        query = [f"host={quote(','.join(hosts), safe='/,:')}"]
        if set(ports) - {"", "5432"}:
            query.append(f"port={','.join(ports if len(set(ports)) > 1 else ports[:1])}")
    else:
        network = [
            (f"[{host}]" if ":" in host else host) + (f":{port}" if port not in {"", "5432"} else "")
            for host, port in zip(hosts, ports, strict=False)
        ]
        query = []
    query += [f"service={quote(service)}"] if service else []
    return (
        "postgresql://"
        + (f"{quote(user, safe='')}@" if user else "")
        + ",".join(network)
        + f"/{quote(found.get('dbname') or user, safe='')}"
        + (f"?{'&'.join(query)}" if query else "")
    )
