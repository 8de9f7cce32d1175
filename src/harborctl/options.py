"""How an option is declared: beside the field that it fills, once for the command line, for jobs and for Python.

::

    @dataclass(frozen=True, slots=True)
    class RunOptions:
        again: Annotated[bool, Option("--again", help="Append also files that the ledger says are in.")] = False

`declared` lists the options of such a class and of its groups, `filled` makes an object of what was said.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from harborctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_T = TypeVar("_T")
_COLLECTIONS = {tuple, frozenset, dict}


@dataclass(frozen=True, slots=True)
class Option:
    """How a field is said.

    A collection is said as a list of texts, and True, where it is the default, as its opposite (`--no-header`).

    Attributes:
        long, short: its names on the command line; what has none is the argument. Jobs know it as `long`.
        help: one sentence, with rich's markup.
        metavar: what stands for the value in the help.
        least: the smallest number.
        said: the type of what is said where it is not the field's; None means that nothing was said.
        read: makes the field's value of what is said.
        modes: in which it means something; empty for all of them.
        of_rejects: whether it means something only with `--on-error reject`.
        of_create: whether it means something only with `--create`.
        or_create: whether `--create` gives it a meaning in every mode.
    """

    long: str = ""
    short: str = ""
    help: str = ""
    metavar: str | None = None
    least: int | None = None
    said: Any = None
    read: Callable[[Option, Any], Any] | None = None
    modes: frozenset[str] = frozenset()
    of_rejects: bool = False
    of_create: bool = False
    or_create: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """A field that is a group of options: they stand together in the help, under this title."""

    title: str


@dataclass(frozen=True, slots=True)
class Declared:
    """An option as `declared` finds it.

    Attributes:
        key: `skip_columns` for `--skip-columns`; of the argument the field's name.
        kind: the type of what is said.
        default: of what is said.
        panel: the title over it in the help; None for the one that has no title of its own.
    """

    option: Option
    key: str
    kind: Any
    default: Any
    required: bool
    panel: str | None


def declared(kind: type, panel: str | None = None) -> Iterator[Declared]:
    """The options of a dataclass and of its groups, in the order of the fields."""
    for each in fields(kind):
        own, how = get_args(each.type)
        if isinstance(how, Panel):
            yield from declared(own, how.title)
            continue
        required = each.default is MISSING and each.default_factory is MISSING
        said, default = how.said or own, each.default
        if get_origin(own) in _COLLECTIONS:
            said, default = list[str] if required else list[str] | None, None
        elif how.said or default is True:
            default = False if default is True else None
        yield Declared(how, _key(how, each.name), said, default, required, panel)


def filled(kind: type[_T], said: Mapping[str, Any]) -> _T:
    """An object of `kind` from what was said, by key; a field about which nothing was said has its default.

    Raises:
        UsageError: a text that cannot be read.
    """
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # whoever declares options does so in a dataclass
        own, how = get_args(each.type)
        if isinstance(how, Panel):
            values[each.name] = filled(own, said)
        elif (given := said.get(_key(how, each.name))) is not None:
            value = how.read(how, given) if how.read else given
            if (collection := get_origin(own)) in _COLLECTIONS:
                value = collection(value)
            values[each.name] = not value if each.default is True else value
    return kind(**values)


def _key(option: Option, name: str) -> str:
    return option.long.removeprefix("--").replace("-", "_") or name


def names(_option: Option, given: Sequence[str]) -> list[str]:
    """`a,b` and repeated options alike → names. A name with a comma in it is given in double quotes, as in CSV."""
    import csv  # `harborctl --help` reads this module, and no list

    return [name for text in given for name in next(csv.reader([text], skipinitialspace=True), [])]


# What stands between the commas of --key: quoted text and parentheses (up to three deep) count as one.
_KEY_PART = r"""(?:"[^"]*"|'[^']*'|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)|[^,])+"""


def key_parts(option: Option, given: Sequence[str]) -> list[str]:
    """As `names`, but commas inside an expression do not divide it: `lower(email), coalesce(town, '')` is two."""
    parts = [part.strip() for text in given for part in re.findall(_KEY_PART, text)]
    return [name for part in parts for name in ([part] if "(" in part else names(option, [part]))]


def pairs(option: Option, given: Sequence[str]) -> list[tuple[str, str]]:
    """`SRC=DST`, or `COL=VALUE` with a value that may be empty → the two of each."""
    found = []
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals or not (value or option.metavar == "COL=VALUE"):
            raise UsageError(f"{option.long} {text} is not of the form {option.metavar}")
        found.append((name, value))
    return found


def delimiter_character(_option: Option, given: str) -> str:
    """One character; a tab has names."""
    return {"tab": "\t", "\\t": "\t"}.get(given, given)


def quote_character(option: Option, given: str) -> str:
    """One character, or nothing for `none`."""
    if not given:
        raise UsageError(
            f"{option.long} takes one character", code="bad_dialect", hint=f"Without any, say {option.long} none."
        )
    return "" if given == "none" else given


def as_text(_option: Option, given: object) -> str:
    """A path as the text that it was."""
    return str(given)
