"""The sample of changes that a dry run ends with, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.plain_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.text import Text

    from harborctl.cli.invocation import Invocation
    from harborctl.model import Change, Difference

STYLES = {"inserted": "green", "updated": "yellow", "deleted": "red"}
# Characters of a value that are shown: enough to know it by.
SHOWN_VALUE = 60


def print_changes(invocation: Invocation, changes: Sequence[Change]) -> None:
    """One line a row on stdout, in colours where a terminal takes them."""
    if not changes:
        return
    with invocation.out.capture() as rendered:
        for change in changes:
            invocation.out.print(_line(change), soft_wrap=True)
    invocation.write(rendered.get())


def _line(change: Change) -> Text:
    from rich.text import Text

    line = Text(f"{change.kind:8}  ", style=STYLES[change.kind])
    line.append(", ".join(f"{visible(name)}={_shown(value)}" for name, value in change.key.items()), style="bold")
    if change.key and change.columns:
        line.append(": ")
    for number, part in enumerate(_parts(change.kind, change.columns.items())):
        line.append("  " if number else "")
        line.append_text(part)
    return line


def _parts(kind: str, columns: Iterable[tuple[str, Difference]]) -> Iterable[Text]:
    from rich.text import Text

    for name, field in columns:
        if kind == "updated":
            old, new = (_shown(field.old), "red"), (_shown(field.new), "green")
            yield Text.assemble((f"{visible(name)} ", "default"), old, (" → ", "default"), new)
        else:
            value = field.new if kind == "inserted" else field.old
            yield Text(f"{visible(name)}={_shown(value)}")


def _shown(value: str | None) -> str:
    """A value in one line: NULL bare, text that could be mistaken in quotes."""
    if value is None:
        return "NULL"
    plain = value if len(value) <= SHOWN_VALUE else value[:SHOWN_VALUE] + "…"
    return plain if plain.isprintable() and plain.strip() == plain and plain not in {"", "NULL"} else repr(plain)
