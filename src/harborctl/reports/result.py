"""What running a report gives: columns, and batches of rows as the server writes them.

A value is the text of the type's output function, the one that `psql` and COPY show, or None for NULL. So nothing is
lost on the way: not the digits of a numeric, not an interval's months, not `infinity`. Formats that need more than
text look at the column's kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

Row = Sequence[str | None]
Batches = Iterator[Sequence[Row]]


class Kind(StrEnum):
    """What formats tell apart."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    JSON = "json"
    TIMESTAMP = "timestamp"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result.

    Attributes:
        type: as PostgreSQL writes it: `numeric`, `timestamp with time zone`, `integer[]`.
        kind: of its values; of a list, that of its elements.
        delimiter: between the elements of a list, and None when it is none.
        base: pg_type's name of the type, or of the type that a domain stands on; of a list, that of its elements.
        digits: precision and scale of a numeric that has them.
    """

    name: str
    type: str
    kind: Kind
    delimiter: str | None = None
    base: str = "text"
    digits: tuple[int, int] | None = None

    @property
    def is_number(self) -> bool:
        """Whether its values stand on the right."""
        return self.delimiter is None and (self.kind is Kind.NUMBER or self.type == "money")


@dataclass(frozen=True, slots=True)
class Result:
    """A report that is running. Its rows can be gone through once, while the transaction is open.

    Attributes:
        batches: the rows.
        lines: instead of `batches`, the rows as CSV in blocks of whole lines, the way COPY writes them; faster by far.
            None if there is no such way.
    """

    columns: tuple[Column, ...]
    batches: Batches
    lines: Callable[[], Iterator[bytes]] | None = None


def unique_names(columns: tuple[Column, ...]) -> list[str]:
    """The columns' names, with `name_2` for a second `name`, for formats where a name must be one of its kind."""
    taken = {column.name for column in columns}
    used: set[str] = set()
    names = []
    for column in columns:
        name, number = column.name, 1
        while name in used or (number > 1 and name in taken):
            number += 1
            name = f"{column.name}_{number}"
        used.add(name)
        names.append(name)
    return names
