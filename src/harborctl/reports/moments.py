"""Dates and moments as people type them: `2026-11-30 12:00`, `2026-11`, `today`, `-7d`, `now-2h`.

Days, weeks, months and years are steps in the calendar; hours and minutes are time that passes. So where clocks are
changed, `-1d` is the same time of day, and `-24h` is 24 hours ago. A time of day that does not exist is moved on, and
of one that is there twice the later is meant, both as in PostgreSQL (DetermineTimeZoneOffset in its datetime.c). A day
begins with its first moment.

Nothing here knows reports or a database; what cannot be read raises ValueError or OverflowError.
"""

from __future__ import annotations

import calendar
import os
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

# Where the system keeps its zone's rules: https://www.freedesktop.org/software/systemd/man/latest/localtime.html
_LOCALTIME = Path("/etc/localtime")

# `m` is left out on purpose: it is months to some and minutes to others.
_STEP = r"[+-]\d{1,6}(?:d|w|mon|y|h|min)"
_RELATIVE = re.compile(rf"(?P<base>today|yesterday|tomorrow|now)?(?P<steps>(?:{_STEP})*)", re.ASCII)
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"mon": 1, "y": 12}
_PASSING = {"h": timedelta(hours=1), "min": timedelta(minutes=1)}


def local_now() -> datetime:
    """The time, with the rules of whoever asks: those of `TZ`, else the system's."""
    return datetime.now(_local_zone())


def _local_zone() -> tzinfo | None:
    name = os.environ.get("TZ", str(_LOCALTIME)).removeprefix(":")
    try:
        if Path(name).is_absolute():
            with Path(name).open("rb") as rules:
                return ZoneInfo.from_file(rules)
        return ZoneInfo(name or "UTC")
    except (KeyError, OSError, ValueError):
        # Not Linux, or rules written out as in `CET-1CEST`: the C library knows today's offset, and no more.
        return datetime.now().astimezone().tzinfo


def read_date(text: str, now: datetime) -> date:
    """`2026-11-30`, `2026-11`, `today`, `-7d`."""
    bare = text.strip().lower()
    if re.fullmatch(r"\d{4}-\d{2}", bare, re.ASCII):
        return date.fromisoformat(f"{bare}-01")
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", bare, re.ASCII):
        return date.fromisoformat(bare)
    if not bare or re.search(r"min|h|now", bare):
        raise ValueError(text)
    return _relative(bare, now, "today").wall.date()


def read_timestamp(text: str, now: datetime) -> datetime:
    """A time on the wall; with a zone if one was written."""
    return _moment(text, now).wall


def read_timestamptz(text: str, now: datetime) -> datetime:
    """A moment. Without an offset it is meant in the zone of `now`."""
    moment = _moment(text, now)
    return moment.wall if moment.wall.tzinfo is not None else moment.at(now.tzinfo)


@dataclass(frozen=True, slots=True)
class _Moment:
    """What a clock shows; the moment, if that is known better than by a clock; whether a day is meant, which begins
    with its first moment, also where midnight is there twice."""

    wall: datetime
    instant: datetime | None = None
    is_day: bool = False

    def at(self, zone: tzinfo | None) -> datetime:
        """The moment, by the rules of this zone."""
        if self.instant is not None:
            return self.instant
        before, after = self.wall.replace(tzinfo=zone, fold=0), self.wall.replace(tzinfo=zone, fold=1)
        twice = (after.utcoffset() or timedelta()) < (before.utcoffset() or timedelta())
        return (after if twice and not self.is_day else before).astimezone(UTC).astimezone(zone)


def _moment(text: str, now: datetime) -> _Moment:
    bare = text.strip()
    if re.fullmatch(r"\d{4}-\d{2}", bare, re.ASCII):
        return _Moment(datetime.fromisoformat(f"{bare}-01"), is_day=True)
    if re.match(r"\d{4}-\d{2}-\d{2}(?:$|[ T]\d{2}:)", bare, re.ASCII):
        return _Moment(datetime.fromisoformat(bare), is_day=len(bare) == 10)
    if not bare:
        raise ValueError(text)
    return _relative(bare.lower(), now, "now")


def _relative(text: str, now: datetime, default_base: str) -> _Moment:
    """`today-7d`, `-2h`, `yesterday`."""
    match = _RELATIVE.fullmatch(text)
    if match is None:
        raise ValueError(text)
    base = match["base"] or default_base
    if base == "now":
        moment = _Moment(now.replace(tzinfo=None, fold=0), now)
    else:
        shift = timedelta(days={"yesterday": -1, "tomorrow": 1}.get(base, 0))
        moment = _Moment(datetime.combine(now.date(), time()) + shift, is_day=True)
    for amount, unit in re.findall(r"([+-]\d+)([a-z]+)", match["steps"]):
        if unit in _PASSING:
            passed = moment.at(now.tzinfo).astimezone(UTC) + int(amount) * _PASSING[unit]
            instant = passed.astimezone(now.tzinfo)
            moment = _Moment(instant.replace(tzinfo=None, fold=0), instant)
        else:
            moment = _Moment(_later(moment.wall, int(amount), unit), is_day=moment.is_day)
    return moment


def _later(wall: datetime, amount: int, unit: str) -> datetime:
    if unit in _DAYS:
        return wall + timedelta(days=amount * _DAYS[unit])
    year, month = divmod(wall.year * 12 + wall.month - 1 + amount * _MONTHS[unit], 12)
    if not 1 <= year <= 9999:
        raise OverflowError(year)
    # As in PostgreSQL, the 31st minus a month is the last day of a shorter one.
    day = min(wall.day, calendar.monthrange(year, month + 1)[1])
    return wall.replace(year=year, month=month + 1, day=day)
