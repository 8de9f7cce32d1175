"""`{date}` and `{date:%Y%m%d}` in the texts of a job.

One that is misspelt names a file that is never there, night after night, so that `--check` looks for what was meant to
be one.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import date

_RIGHT = re.compile(r"\{date(?::([^{}]*))?\}")
_BRACES = re.compile(r"\{(?P<name>[^{}:]*)(?P<form>:[^{}]*)?(?P<end>\}?)")
_WORD = re.compile(r"\s*\w+\s*")

# https://docs.python.org/3/library/datetime.html#format-codes, and those besides that C libraries agree on.
_OF_DATES = frozenset("aAbBCdDeFgGhjmuUVwWxyY%")
_OF_TIMES = frozenset("cfHIklMpPrRsSTXzZ")
_CODE = re.compile(r"%[-_0^#]?(.?)", re.DOTALL)

# Of the letters of a word and of `date`, how many are the same for one to stand for the other: `dat`, `dates`, `datee`.
_SIMILAR = 0.8

HINT = "There is {date}, or with a form {date:%Y%m%d}."


class Mistake(NamedTuple):
    """What is wrong with a placeholder, and what to write instead."""

    message: str
    hint: str


def dated(text: str, day: date) -> str:
    """The text with `day` in its placeholders."""
    return _RIGHT.sub(lambda found: day.strftime(found[1]) if found[1] else day.isoformat(), text)


def mistake_in(text: str, *, is_name: bool) -> Mistake | None:
    """The first placeholder that is none. In the names of files and tables any word in braces was meant to be one; in
    other text, where braces have meanings of their own (`{red}` is an array), one that looks like `{date}`."""
    for found in _BRACES.finditer(text):
        if _RIGHT.fullmatch(found[0]):
            if mistake := _mistake_of_form(found[0], (found["form"] or ":")[1:]):
                return mistake
        elif _is_meant(found, is_name=is_name):
            if not found["end"]:
                return Mistake(f"has a placeholder without its }}: {found[0]}", HINT)
            return Mistake(f"has an unknown placeholder {found[0]}", HINT)
    return None


def _is_meant(found: re.Match[str], *, is_name: bool) -> bool:
    name, form = found["name"].strip().lower(), found["form"] or ""
    if name.startswith("date") and (is_name or "%" in form):
        return True
    if not _WORD.fullmatch(found["name"]):
        return False
    if "%" in form or (is_name and found["end"] and not name[0].isdigit()):
        return True
    return bool(found["end"]) and difflib.SequenceMatcher(None, name, "date").ratio() > _SIMILAR


def _mistake_of_form(placeholder: str, form: str) -> Mistake | None:
    codes = _CODE.findall(form)
    if form and not codes:
        return Mistake(f"has a form without any % in {placeholder}", "%Y is the year, %m the month, %d the day.")
    for code in codes:
        if code in _OF_TIMES:
            return Mistake(
                f"asks for the time of a day by %{code} in {placeholder}, and a date has none",
                "%Y is the year, %m the month, %d the day.",
            )
        if code not in _OF_DATES:
            return Mistake(
                f"has an unknown form %{code} in {placeholder}",
                "%Y is the year, %m the month, %d the day; %% is a percent sign.",
            )
    return None
