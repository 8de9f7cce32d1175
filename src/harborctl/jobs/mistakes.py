"""What pydantic finds wrong with a job, in the words of the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from harborctl.nearest import did_you_mean, nearest_or_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel, ValidationError
    from pydantic_core import ErrorDetails

# pydantic's name of a mistake, or the begin of it → what belongs there.
# https://docs.pydantic.dev/latest/errors/validation_errors/
_WANTED = {
    "string": "a string",
    "path": "a string",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a string, or an array of strings",
    "dict": "a table",
    "model": "a table",
}
_ARRAYS = ("loads", "reports")


class Mistake(NamedTuple):
    """Where it is, as steps from the job on; what is wrong there; and what to do."""

    path: tuple[str | int, ...]
    message: str
    hint: str | None = None


def first_mistake(invalid: ValidationError, job: type[BaseModel], place: str) -> Mistake:
    """The mistake to tell first. `place` is the job's own, `jobs.nightly`."""
    # A key that is none is why another one is missing.
    found = min(invalid.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
    path = found["loc"]
    if "parameters" in path:  # the rest is what it was tried as
        path = path[: path.index("parameters") + 2]
    kind = found["type"]
    if kind == "extra_forbidden":
        return Mistake(path, "is an unknown key", nearest_or_all(str(path[-1]), _keys_beside(path, job)))
    if kind == "missing":
        return _lacking(path, place)
    if kind == "too_short":
        return _lacking(path, place)
    if not path:
        return Mistake(path, "must be one table", f"Write [{place}], with one bracket on each side.")
    if path[-1] in _ARRAYS and kind == "list_type":
        return Mistake(
            path, "must be an array of tables", f"Write [[{place}.{path[-1]}]], with two brackets on each side."
        )
    return Mistake(path, f"must be {_wanted(found, path)}, not {_as_written(found['input'])}", _nearest_choice(found))


def _lacking(path: tuple[str | int, ...], place: str) -> Mistake:
    *table, key = path
    if key == "loads":
        return Mistake(tuple(table), "has no loads", f'Add [[{place}.loads]], with source = "…" below it.')
    return Mistake(tuple(table), f"lacks {key}", f'Add {key} = "…".')


def _wanted(found: ErrorDetails, path: Sequence[str | int]) -> str:
    kind, context = found["type"], found.get("ctx", {})
    if "parameters" in path and path[-1] != "parameters":
        return "a string, a number, true or false, or a date"
    if kind == "greater_than_equal":
        return f"{context['ge']:g} or more"
    if kind == "enum":
        return "one of " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    return _WANTED.get(kind.partition("_")[0], "something else")


def _nearest_choice(found: ErrorDetails) -> str | None:
    if found["type"] != "enum" or not isinstance(found["input"], str):
        return None
    choices = str(found.get("ctx", {})["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
    return did_you_mean(found["input"], choices)


def _as_written(value: object) -> str:
    """The value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "a table"
    return "an array" if isinstance(value, list) else str(value)


def _keys_beside(path: Sequence[str | int], job: type[BaseModel]) -> list[str]:
    model: Any = job
    if path[0] in _ARRAYS and len(path) > 1:
        model = get_args(model.model_fields[path[0]].annotation)[0]
    return [field.alias or name for name, field in model.model_fields.items()]
