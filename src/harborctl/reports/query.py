"""A statement that was typed → a report without a file. What `-p` gives needs no declaration: its value tells the type.

A number of digits alone is a bigint, one with decimals numeric, an ISO date a date, and all else text; what it is to be
besides, the statement says with a cast. A comment `-- param:` declares a parameter as in a report.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.reports.lexer import NotSql, tokens
from harborctl.reports.output import file_output
from harborctl.reports.parse import parse_report
from harborctl.reports.report import Parameter
from harborctl.reports.values import parameter_type

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from harborctl.reports.report import Report

NAME = "query"

_URL = re.compile(r"\s*\w+://")

_TYPES = (
    (re.compile(r"-?(?:0|[1-9]\d{0,17})", re.ASCII), "bigint"),
    (re.compile(r"-?(?:0|[1-9]\d*)\.\d+", re.ASCII), "numeric"),
    (re.compile(r"\d{4}-\d\d-\d\d", re.ASCII), "date"),
)


def typed_query(sql: str, given: Sequence[str], file: str = NAME) -> Report:
    """The report that `sql` is, with a parameter for each word such as `days=7` that it does not declare itself.

    Raises:
        UsageError: it is not one SELECT.
        StatementFailed: it would write.
    """
    if _URL.match(sql):  # the colon of its password would begin a parameter
        raise UsageError("a URL is no statement", hint="Name a database with --url.")
    further = [_undeclared(*word.split("=", 1)) for word in given if "=" in word]
    known = {*_declared(sql), *(each.name for each in further)}
    with suppress(NotSql):  # whoever parses it says where
        for token in tokens(sql):
            if token.name is not None and token.name not in known:
                raise UsageError(
                    f"the statement needs parameter {token.name}",
                    code="missing_parameter",
                    hint=f"Set it with -p {token.name}=VALUE. A colon of another meaning takes a space behind it.",
                )
    return parse_report(NAME, file, sql, further)


def report_path(name: str, folder: Path) -> Path:
    """Where a report of this name is to be.

    Raises:
        UsageError: it cannot be called so, or there is one.
    """
    path = folder / f"{name}.sql"
    if not re.fullmatch(r"\w[\w-]*(?:/\w[\w-]*)*", name):
        raise UsageError(f"a report cannot be called {name}", hint="Use letters, digits, _ and -.")
    if path.exists():
        raise UsageError(f"{path} is there already", code="report_exists", hint="Save it under another name.")
    return path


def save_report(query: Report, path: Path) -> None:
    """Write a report that asks the same: every parameter is declared.

    Raises:
        HarborctlError: the file cannot be written.
    """
    declared = _declared(query.text)
    lines = [f"-- param: {each.name} {each.type}" for each in query.parameters if each.name not in declared]
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_output(path) as stream:
        stream.write(("\n".join([*lines, query.text.strip()]) + "\n").encode())


def _declared(sql: str) -> set[str]:
    return set(re.findall(r"--\s*param\s*:\s*(\w+)", sql, re.IGNORECASE))


def _undeclared(name: str, value: str) -> Parameter:
    name_of_type = next((kind for form, kind in _TYPES if form.fullmatch(value)), "text")
    kind = parameter_type(name_of_type)
    if kind is None:
        raise AssertionError(f"{name_of_type} is a type of parameters")
    return Parameter(name.strip(), kind, required=True, default=None, help="")
