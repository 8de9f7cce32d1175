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

import re
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from harborctl.config import Config, nearest
from harborctl.errors import UsageError
from harborctl.load.options import load_options
from harborctl.model import LoadOptions
from harborctl.options import declared

_PLACEHOLDER = re.compile(r"\{date(?::([^{}]*))?\}")
# What was meant to be one, where the names of files stand.
_UNKNOWN = re.compile(r"\{[A-Za-z_]\w*(?::[^{}]*)?\}|\{\s*date[^{}]*\}")


@dataclass(frozen=True, slots=True)
class JobLoad:
    """One load of a job. With `missing_ok` no file is no failure."""

    name: str
    options: LoadOptions
    missing_ok: bool


@dataclass(frozen=True, slots=True)
class JobReport:
    """One report of a job, and the file that it goes into."""

    report: str
    output: Path
    parameters: tuple[str, ...]


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
            hint=nearest(name, config.jobs) or f"Add [[jobs.{name}.loads]] to it.",
        )
    place = f"jobs.{name}"
    model = _model()
    try:
        read = model.model_validate(_dated(_underscored(config.jobs[name]), day))
    except ValidationError as invalid:
        raise _explained(invalid, model, place, config.file) from invalid
    loads: list[JobLoad] = []
    for number, each in enumerate(read.loads):  # type: ignore[attr-defined]  # made from the options
        given = each.model_dump(exclude_unset=True)
        loads.append(_load(given, f"{place}.loads[{number}]", config.file))
        if [load.name for load in loads].count(loads[-1].name) > 1:
            raise UsageError(
                f"{place} in {config.file} has two loads of the name {loads[-1].name}",
                code="bad_config",
                hint='Give each a name = "…" of its own.',
            )
    return _job(name, read, tuple(loads), config)


def _job(name: str, read: Any, loads: tuple[JobLoad, ...], config: Config) -> Job:
    if read.connection is not None and read.connection not in config.connections:
        raise UsageError(
            f"jobs.{name}.connection in {config.file} names {read.connection}, which is no connection there",
            code="no_such_connection",
            hint=nearest(read.connection, config.connections),
        )
    for number, sql in enumerate(read.after):
        if _is_empty(sql):
            raise UsageError(f"jobs.{name}.after[{number}] in {config.file} is no statement", code="bad_config")
    for number, each in enumerate(read.reports):
        _refuse_placeholder(each.output, f"jobs.{name}.reports[{number}]", config.file)
        folder = Path(each.output).parent
        if not folder.is_dir():
            raise UsageError(
                f"jobs.{name}.reports[{number}].output in {config.file}: there is no folder {folder}",
                code="bad_output",
                hint=f"Make it: mkdir -p {folder}",
            )
    reports = tuple(
        JobReport(each.report, Path(each.output), tuple(f"{key}={value}" for key, value in each.parameters.items()))
        for each in read.reports
    )
    return Job(name, read.connection, read.keep_going, loads, tuple(read.after), reports)


def _refuse_placeholder(text: object, place: str, file: Path) -> None:
    """What would be looked for under its own name, night after night."""
    if found := _UNKNOWN.search(str(text or "")):
        raise UsageError(
            f"{place} in {file} has an unknown placeholder {found[0]}",
            code="bad_config",
            hint="There is {date}, or with a form {date:%Y%m%d}.",
        )


def _is_empty(sql: str) -> bool:
    from harborctl.reports.lexer import NotSql, tokens

    try:
        return all(token.blank or token.kind == "semicolon" for token in tokens(sql))
    except NotSql:
        return False  # the server says better what is wrong


def _load(given: dict[str, Any], place: str, file: Path) -> JobLoad:
    sources = given.pop("sources", None)
    name, missing_ok = given.pop("name", None), given.pop("missing_ok", False)
    for text in [*(sources or ()), given.get("reject_file")]:
        _refuse_placeholder(text, place, file)
    if not sources:
        raise UsageError(f'{place} in {file} has no source = "…"', code="bad_config")
    try:
        options = load_options(**given, sources=sources)
    except UsageError as error:
        raise UsageError(f"{place} in {file}: {error.message}", code=error.code, hint=error.hint) from error
    return JobLoad(name or options.table or sources[0], options, missing_ok)


class _Report(BaseModel):
    model_config = ConfigDict(extra="forbid")

    report: str
    output: str
    parameters: dict[str, str | int | float | bool | date | time] = {}


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
    """`{date}` and `{date:%Y%m%d}` in every text, SQL left as it is."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: day.strftime(match[1]) if match[1] else day.isoformat(), value)
    if isinstance(value, list):
        return [_dated(item, day) for item in value]
    if isinstance(value, dict):
        return {key: item if key in {"after", "check"} else _dated(item, day) for key, item in value.items()}
    return value


def _explained(invalid: ValidationError, job: type[BaseModel], place: str, file: Path) -> UsageError:
    """The first mistake, with the way to it."""
    # A word that is none is why another one is missing.
    first = min(invalid.errors(include_url=False), key=lambda error: error["type"] != "extra_forbidden")
    path = place
    for step in first["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if first["type"] == "extra_forbidden":
        known: list[str] = []
        model: Any = job
        if "loads" in first["loc"]:
            model = get_args(model.model_fields["loads"].annotation)[0]
        elif "reports" in first["loc"]:
            model = _Report
        known = [field.alias or name for name, field in model.model_fields.items()]
        return UsageError(
            f"{file} has an unknown key {path}", code="bad_config", hint=nearest(str(first["loc"][-1]), known)
        )
    message = first["msg"][0].lower() + first["msg"][1:]
    given = first["input"]
    shown = f", not {given!r}" if isinstance(given, str | int | float) else ""
    return UsageError(f"{path} in {file}: {message}{shown}", code="bad_config")
