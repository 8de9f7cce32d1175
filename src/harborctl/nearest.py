"""Which of the names that there are was probably meant by one that there is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of the known names, if one is similar at all."""
    import difflib  # only mistakes need it

    folded = {each.lower(): each for each in known}
    match = difflib.get_close_matches(name.lower(), folded, n=1)
    return folded[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest name, if there is one."""
    match = nearest(name, known)
    return f"Did you mean {match}?" if match else None


def nearest_or_all(name: str, known: Iterable[str]) -> str | None:
    """A hint with the nearest name, else with all that there are."""
    names = sorted(known)
    return did_you_mean(name, names) or (f"There is {', '.join(names)}." if names else None)
