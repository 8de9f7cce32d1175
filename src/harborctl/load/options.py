"""What was said of a load, on the command line or in a job → `LoadOptions`, or why it means nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harborctl.errors import UsageError
from harborctl.load.run.chunk_rules import check_parts, in_parts
from harborctl.model import LoadOptions, Mode, OnError
from harborctl.options import declared, filled
from harborctl.sources.encodings import codec_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def load_options(**said: Any) -> LoadOptions:
    """The options of a load from what was said, by the keys that `declared` gives; None is nothing said.

    Raises:
        TypeError: a key is none of these.
        UsageError: something cannot be read, or means nothing beside the rest.
    """
    if unknown := said.keys() - {each.key for each in declared(LoadOptions)}:
        raise TypeError(f"a load has no option {', '.join(sorted(unknown))}")
    _refuse_meaningless(said)
    options = filled(LoadOptions, said)
    _refuse_filled_twice(said)
    options = replace(options, dialect=replace(options.dialect, encoding=codec_of(options.dialect.encoding)))
    if in_parts(options):
        check_parts(options)
    return options


def _refuse_meaningless(said: Mapping[str, Any]) -> None:
    given = [each.option for each in declared(LoadOptions) if said.get(each.key)]
    mode, creates = said.get("mode", Mode.APPEND), bool(said.get("create"))
    for option in given:
        if option.modes and mode not in option.modes and not (option.or_create and creates):
            modes = ", ".join(sorted(option.modes))
            raise UsageError(f"{option.long} means nothing in mode {mode}", hint=f"It belongs to --mode {modes}.")
    for option in given:
        if option.of_rejects and said.get("on_error") is not OnError.REJECT:
            raise UsageError(f"{option.long} means nothing without rejects", hint="Say --on-error reject.")
        if option.of_create and not creates:
            raise UsageError(f"{option.long} is about a table that is to be made", hint="Say --create.")


def _refuse_filled_twice(said: Mapping[str, Any]) -> None:
    """A column that two options fill is a mistake; one that fills two is not."""
    given = [("--map", text, text.partition("=")[2]) for text in said.get("map") or ()]
    given += [("--set", text, text.partition("=")[0]) for text in said.get("set") or ()]
    seen: dict[str, str] = {}
    for option, text, target in given:
        if option == "--map" and text.partition("=")[0].endswith("?"):
            continue  # of several at most one may be there
        if target in seen:
            raise UsageError(
                f"column {target} would be filled twice: by {seen[target]}, and by {option} {text}",
                hint="Take one of them away.",
            )
        seen[target] = f"{option} {text}"
