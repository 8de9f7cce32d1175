"""Relative dates and moments where clocks are changed: in all zones, at all changes from 2020 to 2030."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from sqlalchemy import Engine, text

from harborctl.reports.moments import local_now, read_date, read_timestamp, read_timestamptz

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


def changes() -> Iterator[tuple[ZoneInfo, datetime]]:
    """Zones and the moments at which their clocks are changed; of zones with the same changes one."""
    seen = set()
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        moments = []
        at = BEGIN
        while at < END:
            if at.astimezone(zone).utcoffset() != (at + WEEK).astimezone(zone).utcoffset():
                moments.append(_change(zone, at, at + WEEK))
            at += WEEK
        rules = (BEGIN.astimezone(zone).utcoffset(), *moments)
        if moments and rules not in seen:
            seen.add(rules)
            yield from ((zone, moment) for moment in moments)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        before, after = (middle, after) if middle.astimezone(zone).utcoffset() == offset else (before, middle)
    return after.replace(microsecond=0)


CHANGES = list(changes())


def test_hours_pass_and_days_are_of_the_calendar() -> None:
    assert len(CHANGES) > 500
    for zone, change in CHANGES:
        for minutes in (-1500, -90, -30, 0, 30, 90, 1500):
            now = (change + timedelta(minutes=minutes)).astimezone(zone)
            wall = now.replace(tzinfo=None, fold=0)
            assert read_timestamptz("now", now).astimezone(UTC) == now.astimezone(UTC)
            for typed, passed in (("-2h", -120), ("+90min", 90), ("-24h", -1440), ("-1h+60min", 0)):
                expected = now.astimezone(UTC) + timedelta(minutes=passed)
                assert read_timestamptz(typed, now).astimezone(UTC) == expected, (zone, now, typed)
                assert read_timestamp(typed, now) == expected.astimezone(zone).replace(tzinfo=None), (zone, now, typed)
            for typed, days in (("-1d", -1), ("+1d", 1), ("-1w", -7)):
                assert read_timestamp(typed, now) == wall + timedelta(days=days)
                assert read_date(typed, now) == wall.date() + timedelta(days=days)
                found = read_timestamptz(typed, now).astimezone(zone)
                if _exists(wall + timedelta(days=days), zone):
                    assert found.replace(tzinfo=None) == wall + timedelta(days=days), (zone, now, typed)
            for typed in ("today", "tomorrow-1d", now.date().isoformat()):
                first = read_timestamptz(typed, now).astimezone(zone)
                assert first.date() == now.date()
                before = (first.astimezone(UTC) - timedelta(seconds=1)).astimezone(zone)
                assert before.date() < now.date(), (zone, now, typed)


def _exists(wall: datetime, zone: ZoneInfo) -> bool:
    return wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall


def test_times_of_the_day_are_those_of_the_server(engine: Engine) -> None:
    """Those that do not exist, and those that are there twice."""
    rows = []
    for zone, change in CHANGES[::29]:
        after = change.astimezone(zone).replace(tzinfo=None, fold=0)
        for minutes in (-45, -15, 15, 45):
            typed = (after + timedelta(minutes=minutes)).isoformat(" ")
            now = datetime(2026, 6, 1, tzinfo=zone)
            rows.append((zone.key, typed, read_timestamptz(typed, now).astimezone(UTC)))
    with engine.connect() as connection:
        known = set(connection.execute(text("SELECT name FROM pg_timezone_names")).scalars())
        for key, typed, found in rows:
            if key not in known:
                continue
            connection.execute(text("SELECT set_config('TimeZone', :zone, true)"), {"zone": key})
            [expected] = connection.execute(text("SELECT CAST(:typed AS timestamptz)"), {"typed": typed}).scalars()
            assert found == expected.astimezone(UTC), (key, typed)


@pytest.mark.parametrize("name", ["Europe/Berlin", ":Europe/Berlin", "file"])
def test_the_zone_of_whoever_asks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    if name == "file":
        source = next((Path(path) / "Europe/Berlin" for path in ("/usr/share/zoneinfo",) if Path(path).exists()), None)
        if source is None:
            pytest.skip("no zones of the system")
        name = str(tmp_path / "zone")
        Path(name).write_bytes(source.read_bytes())
    monkeypatch.setenv("TZ", name)
    now = local_now()
    summer, winter = datetime(2026, 7, 1, tzinfo=now.tzinfo), datetime(2026, 1, 1, tzinfo=now.tzinfo)
    assert (summer.utcoffset(), winter.utcoffset()) == (timedelta(hours=2), timedelta(hours=1))


@pytest.mark.parametrize("name", ["", "CET-1CEST,M3.5.0,M10.5.0/3", "Nowhere/At/All", "/no/such/file", "x\udcff"])
def test_odd_zones_are_no_failure(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("TZ", name)
    assert abs(local_now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_day_that_begins_at_one() -> None:
    """In Santiago the clocks went forward at midnight."""
    now = datetime(2026, 9, 6, 12, tzinfo=ZoneInfo("America/Santiago"))
    assert read_timestamptz("today", now).time() == time(1)
    assert read_timestamp("today", now) == datetime(2026, 9, 6)
    assert read_date("today", now) == date(2026, 9, 6)
