"""The jobs of `harborctl.toml`: what they may say, told from the options of `harborctl load`, and what they mean.

::

    [jobs.nightly]
    connection = "production"
    after = ["REFRESH MATERIALIZED VIEW shop.totals"]

    [[jobs.nightly.loads]]
    source = "feeds/orders_{date:%Y%m%d}.csv"
    table = "shop.orders"
    mode = "upsert"
    missing_ok = true

    [[jobs.nightly.reports]]
    report = "low_stock"
    output = "low_{date:%Y-%m-%d}.csv"
    parameters = { threshold = 10 }

Everything that `load` takes a load may say, in the option's words. Checked by pydantic, which Typer brings along.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from datetime import date, datetime, time
from enum import EnumType
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from harborctl.errors import Location, UsageError
from harborctl.jobs.mistakes import first_mistake
from harborctl.jobs.placeholders import dated, mistake_in
from harborctl.jobs.toml_lines import line_of
from harborctl.load.options import load_options
from harborctl.model import LoadOptions
from harborctl.nearest import nearest_or_all
from harborctl.options import declared

if TYPE_CHECKING:
    from harborctl.config import Config

# SQL is sent as it is written.
_SQL = {"after", "check"}
# What these hold is the name of a file or a table.
_NAMES = {"source", "table", "reject_file", "output"}


# An option in a sentence, and what is said with it: NAME=VALUE, or a word that ends at a stop or is one of its choices.
_OPTION = re.compile(
    r"(?P<option>--[a-z][a-z-]*)(?: (?:(?P<left>\w+)=(?P<right>\w+)|(?P<value>[\w%]+)(?P<end>(?=[.,;)]?$|[.,;)] ))?))?"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a file of jobs: the keys that lead to it."""

    file: Path
    path: tuple[str | int, ...]

    def __truediv__(self, steps: str | int | tuple[str | int, ...]) -> Place:
        """A place within this one."""
        return Place(self.file, (*self.path, *(steps if isinstance(steps, tuple) else (steps,))))

    def __str__(self) -> str:
        return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path).removeprefix(".")

    def wrong(self, message: str, *, hint: str | None = None, code: str = "bad_config") -> UsageError:
        """What is wrong here; `message` goes on after the keys."""
        line = line_of(self.file, self.path)
        if line is None:
            return UsageError(f"{self} in {self.file} {message}", code=code, hint=hint)
        return UsageError(f"{self} {message}", code=code, hint=hint, location=Location(str(self.file), line))


@dataclass(frozen=True, slots=True)
class JobLoad:
    """One load of a job. With `missing_ok` no file is no failure."""

    name: str
    options: LoadOptions
    missing_ok: bool


@dataclass(frozen=True, slots=True)
class JobReport:
    """One report of a job, and the file that it goes into. `place` is where the file of jobs names it."""

    report: str
    output: Path
    parameters: tuple[str, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Job:
    """A job, ready to run: loads, then `after`, then reports."""

    name: str
    connection: str | None
    keep_going: bool
    loads: tuple[JobLoad, ...]
    after: tuple[str, ...] = ()
    reports: tuple[JobReport, ...] = field(default=())


def find_job(config: Config, name: str, day: date) -> Job:
    """The job of this name, with `day` in its placeholders.

    Raises:
        UsageError: there is none, or the file says what it may not; names file, key and the nearest valid name.
    """
    if name not in config.jobs:
        raise UsageError(
            f"{config.file} has no job {name}",
            code="no_such_job",
            hint=nearest_or_all(name, config.jobs) or f"Add [[jobs.{name}.loads]] to it.",
        )
    place = Place(config.file, ("jobs", name))
    model = _model()
    raw = _underscored(config.jobs[name])
    _check_placeholders(raw, place)
    try:
        read = model.model_validate(_dated(raw, day))
    except ValidationError as invalid:
        path, message, hint = first_mistake(invalid, model, str(place))
        raise (place / path).wrong(message, hint=hint) from invalid
    loads: list[JobLoad] = []
    for number, each in enumerate(read.loads):  # type: ignore[attr-defined]  # made from the options
        here = place / ("loads", number)
        loads.append(_load(each.model_dump(exclude_unset=True), here))
        if [load.name for load in loads].count(loads[-1].name) > 1:
            raise here.wrong(f"is another load of the name {loads[-1].name}", hint='Give each a name = "…" of its own.')
    return _job(name, read, tuple(loads), config)


def _job(name: str, read: Any, loads: tuple[JobLoad, ...], config: Config) -> Job:
    place = Place(config.file, ("jobs", name))
    if read.connection is not None and read.connection not in config.connections:
        raise (place / "connection").wrong(
            f"names {read.connection}, which is no connection of this file",
            code="no_such_connection",
            hint=nearest_or_all(read.connection, config.connections) or f"Add [connections.{read.connection}] to it.",
        )
    for number, sql in enumerate(read.after):
        if _is_empty(sql):
            raise (place / ("after", number)).wrong("is no statement")
    reports = []
    for number, each in enumerate(read.reports):
        here = place / ("reports", number)
        _require_folder(each.output, here / "output")
        words = tuple(f"{key}={_word(value)}" for key, value in each.parameters.items())
        reports.append(JobReport(each.report, Path(each.output), words, here))
    return Job(name, read.connection, read.keep_going, loads, tuple(read.after), tuple(reports))


def _word(value: object) -> str:
    """The value of a parameter as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _require_folder(file: str, place: Place) -> None:
    folder = Path(file).parent
    if not folder.is_dir():
        raise place.wrong(
            f"names a file in a folder that does not exist: {folder}",
            code="bad_output",
            hint=f"Make it: mkdir -p {shlex.quote(str(folder))}",
        )


def _check_placeholders(value: Any, place: Place, key: str = "") -> None:
    """What would be looked for under its own name, night after night."""
    if isinstance(value, str) and (mistake := mistake_in(value, is_name=key in _NAMES)):
        raise place.wrong(mistake.message, hint=mistake.hint)
    if isinstance(value, list):
        for number, item in enumerate(value):
            _check_placeholders(item, place / number, key)
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in _SQL:
                _check_placeholders(item, place / name, name)


def _is_empty(sql: str) -> bool:
    from harborctl.reports.lexer import NotSql, tokens

    try:
        return all(token.blank or token.kind == "semicolon" for token in tokens(sql))
    except NotSql:
        return False  # the server says better what is wrong


def _load(given: dict[str, Any], place: Place) -> JobLoad:
    sources = given.pop("sources", None)
    name, missing_ok = given.pop("name", None), given.pop("missing_ok", False)
    if not sources:
        raise place.wrong('has no source = "…"')
    if file := given.get("reject_file"):
        _require_folder(str(file), place / "reject_file")
    try:
        options = load_options(**given, sources=sources)
    except UsageError as error:
        named = re.search(r"--([a-z][a-z-]*)", error.message)
        key = named[1].replace("-", "_") if named else None
        here = place / key if key in given else place
        hint = in_words_of_the_file(error.hint) if error.hint else None
        message = in_words_of_the_file(error.message).removeprefix(f"{key} ")
        raise here.wrong(message if here != place else f"is wrong: {message}", code=error.code, hint=hint) from error
    return JobLoad(name or options.table or sources[0], options, missing_ok)


def in_words_of_the_file(text: str) -> str:
    """What is said of options of a load, said of keys: `--on-error reject` is `on_error = "reject"`. Other options, as
    that of the command which runs the job, stay what they are."""
    options = {each.option.long: each for each in declared(LoadOptions) if each.option.long}

    def word(found: re.Match[str]) -> str:
        option, value, end = options.get(found["option"]), found["value"], found["end"]
        if option is None:
            return found[0]
        if found["right"] and option.key in {"map", "set"}:
            return f"{option.key} = {{ {found['left']} = {json.dumps(found['right'])} }}"
        if value and (end is not None or value in _choices(option.kind)):
            return f"{option.key} = {value if value.isdigit() else json.dumps(value)}"
        return f"{option.key} {value}" if value else option.key

    return _OPTION.sub(word, text)


def _choices(kind: Any) -> set[str]:
    """The values of an enumeration that may be said."""
    kinds = (kind, *get_args(kind))
    enums: list[Any] = [each for each in kinds if isinstance(each, EnumType)]
    return {str(choice.value) for each in enums for choice in each}


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")

    report: str
    output: str
    parameters: dict[str, str | int | float | bool | date | datetime | time] = {}


def _listed(value: object) -> object:
    """One thing stands for a list of it; a table for a list of NAME=VALUE."""
    if isinstance(value, dict):
        return [
            f"{key}={item}" for key, items in value.items() for item in (items if isinstance(items, list) else [items])
        ]
    return [value] if isinstance(value, str) else value


def _text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _model() -> type[BaseModel]:
    """A job, whose loads have every option of the command line under its long name."""
    strict = ConfigDict(extra="forbid", strict=False)
    fields: dict[str, Any] = {"name": (str | None, None), "missing_ok": (bool, False)}
    for each in declared(LoadOptions):
        kind = each.kind
        if list in {getattr(part, "__origin__", None) for part in (kind, *get_args(kind))}:
            kind = Annotated[kind, BeforeValidator(_listed)]
        elif str in get_args(kind):
            kind = Annotated[kind, BeforeValidator(_text)]
        alias = "source" if each.key == "sources" else each.key
        fields[each.key] = (kind, Field(default=each.default, alias=alias, ge=each.option.least))
    load = create_model("Load", __config__=strict, **fields)
    return create_model(
        "Job",
        __config__=strict,
        connection=(str | None, None),
        keep_going=(bool, False),
        loads=(list[load], Field(min_length=1)),  # type: ignore[valid-type]  # a model made just now
        after=(Annotated[list[str], BeforeValidator(_listed)], []),
        reports=(list[_Report], []),
    )


def _underscored(value: Any) -> Any:
    """Keys may have hyphens as on the command line, and `sources` is `source`. What `map`, `set` and the parameters of
    reports hold are names of others."""
    if isinstance(value, list):
        return [_underscored(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {}
    for key, item in value.items():
        spelled = {"sources": "source"}.get(key, key.replace("-", "_"))
        renamed[spelled] = item if spelled in {"map", "set", "parameters"} else _underscored(item)
    return renamed


def _dated(value: Any, day: date) -> Any:
    """`day` in the placeholders of every text, SQL left as it is."""
    if isinstance(value, str):
        return dated(value, day)
    if isinstance(value, list):
        return [_dated(item, day) for item in value]
    if isinstance(value, dict):
        return {key: item if key in _SQL else _dated(item, day) for key, item in value.items()}
    return value
