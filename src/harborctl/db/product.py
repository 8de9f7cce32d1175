"""Which database answers, by its own account: PostgreSQL, or one of those that speak its protocol.

What is not PostgreSQL itself has not been tested, and nobody should learn that from wrong rows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

POSTGRESQL = "PostgreSQL"

# What each writes into the answer of `version()`. All but CockroachDB begin as the PostgreSQL that they come from.
_OTHERS = {
    "CockroachDB": re.compile(r"^CockroachDB (?:\w+ )?v(?P<version>\d[\w.-]*)"),
    "Amazon Redshift": re.compile(r"\bRedshift (?P<version>\d[\d.]*)"),
    "YugabyteDB": re.compile(r"^PostgreSQL [\d.]+-YB-(?P<version>\d[\w.-]*)"),
    "Greenplum": re.compile(r"\(Greenplum Database (?P<version>\d[\w.-]*)"),
    "openGauss": re.compile(r"\(openGauss (?P<version>\d[\w.-]*)"),
    "EDB Postgres Advanced Server": re.compile(r"\(EnterpriseDB Advanced Server (?P<version>\d[\d.]*)"),
}
_ITSELF = re.compile(r"^PostgreSQL (?P<version>\d[\w.]*)")

# Those that change what tables are, under the names that people know.
EXTENSIONS = {"citus": "Citus", "timescaledb": "TimescaleDB"}


@dataclass(frozen=True, slots=True)
class Product:
    """A database, and the extensions of `EXTENSIONS` that it has.

    Attributes:
        version: empty where it does not tell.
    """

    name: str
    version: str
    extensions: tuple[str, ...] = ()

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL itself, with whatever extensions."""
        return self.name == POSTGRESQL

    def __str__(self) -> str:
        return " with ".join(filter(None, [f"{self.name} {self.version}".rstrip(), ", ".join(self.extensions)]))


def product_of(answer: str, extensions: Mapping[str, str] | None = None) -> Product:
    """The database that gives this `answer` to `SELECT version()`; `extensions` are those it has, with their versions.

    A database of an unknown kind goes by the first word of its answer.
    """
    for name, pattern in _OTHERS.items():
        if found := pattern.search(answer):
            return Product(name, found["version"])
    if found := _ITSELF.search(answer):
        has = tuple(f"{EXTENSIONS[name]} {number}" for name, number in (extensions or {}).items() if name in EXTENSIONS)
        return Product(POSTGRESQL, found["version"], has)
    name, _, rest = answer.partition(" ")
    number = re.match(r"v?(\d[\w.-]*)", rest)
    return Product(name or "unknown", number[1] if number else "")
