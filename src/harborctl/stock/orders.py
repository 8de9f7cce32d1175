"""What is asked of the stock, and what became of it. Pure data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from harborctl.errors import HarborctlError, Location


class State(StrEnum):
    """What became of a reservation; FULFILLED is one that was paid for."""

    ACTIVE = "active"
    RELEASED = "released"
    EXPIRED = "expired"
    FULFILLED = "fulfilled"


class Answer(StrEnum):
    """What became of an order."""

    RESERVED = "reserved"
    ALREADY_RESERVED = "already_reserved"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Line:
    """So many pieces of a variant, which is named by its SKU or its id."""

    variant: str
    quantity: int
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What one order wants: all of it or nothing. With an `error` its lines could not be read."""

    ref: str
    lines: tuple[Line, ...]
    error: HarborctlError | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A row of `stock_reservations` with its variant's SKU. `overdue`: it is active, and its time is over."""

    id: int
    order: str
    variant_id: int
    sku: str
    quantity: int
    state: State
    overdue: bool
    expires_at: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OrderResult:
    """What became of one order. `left` says for each SKU how many pieces are free now."""

    order: str
    answer: Answer
    reservations: tuple[Reservation, ...] = ()
    left: dict[str, int] | None = None
    error: HarborctlError | None = None
