"""What counting gives, and how it is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from harborctl.errors import HarborctlError


class Method(StrEnum):
    """How a number was found."""

    ESTIMATE = "estimate"
    EXACT = "exact"
    SAMPLE = "sample"


class Basis(StrEnum):
    """What an estimate stands on, the surest first."""

    FILE_SIZE = "file size"
    ANALYZE = "analyze"
    LIVE_ROWS = "live rows"
    SHARDS = "shards"
    PLANNER = "planner"


@dataclass(frozen=True, slots=True)
class CountOptions:
    """How to count; without any of these, estimate.

    Attributes:
        exact: count every row.
        sample: percent of the pages to count rows on.
        where: an SQL condition; only rows that meet it count.
        seed: of the sample: the same seed takes the same pages again.
    """

    exact: bool = False
    sample: float | None = None
    where: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TableCount:
    """How many rows a table has.

    Attributes:
        table: `schema.name`.
        low, high: what the truth lies between, of a sample with a confidence of 95 %; None if nothing is known of that.
        analyzed_at: when all its parts had been analyzed; None if one never was.
        changed_since: rows inserted, updated and deleted since then, as the server counts them; None for a view.
        basis: of an estimate.
        pages: pages that were sampled.
    """

    table: str
    rows: int
    method: Method
    low: int | None
    high: int | None
    analyzed_at: datetime | None
    changed_since: int | None
    basis: Basis | None
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class Counting:
    """A count that is about to begin.

    Attributes:
        table: `schema.name`.
        done: how many tables have been counted.
        tables: how many there are.
        expected: about how many rows an exact count will find; None for other methods.
    """

    table: str
    done: int
    tables: int
    expected: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts, what a pattern matched but could not be counted, and what there is to say of others.

    Attributes:
        unreadable: this user may not read them.
        failed: why the others could not be counted, by table.
        notes: sentences about what was counted.
    """

    tables: list[TableCount]
    unreadable: list[str]
    failed: dict[str, HarborctlError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
