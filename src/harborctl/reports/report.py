"""A report as it was read: what it is called, what it takes, what it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.nearest import nearest_or_all

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from harborctl.reports.lexer import Piece
    from harborctl.reports.values import Bounds, ParameterType, Value


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a report.

    Attributes:
        required: there is no default.
        default: its text; None stands for NULL, if the parameter is not required.
        bounds: what a number must lie between.
    """

    name: str
    type: ParameterType
    required: bool
    default: str | None
    help: str
    bounds: Bounds | None = None

    def given(self, text: str, now: datetime) -> Value:
        """The value that was typed; see `ParameterType.given`.

        Raises:
            BadValue: it is not of the type, or out of bounds.
        """
        return self._within_bounds(self.type.given(text, now))

    def default_value(self, now: datetime) -> Value:
        """The value of the default.

        Raises:
            BadValue: as `given`.
        """
        return None if self.default is None else self._within_bounds(self.type.value(self.default, now))

    def _within_bounds(self, value: Value) -> Value:
        if self.bounds is not None:
            for element in value if isinstance(value, list) else [value]:
                self.bounds.check(element)
        return value


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        name: what it is called by.
        file: where it was read, for people.
        text: the whole file.
        statement: its one statement, without the semicolon, from the file's first character on.
        built_in: it came with harborctl.
    """

    name: str
    file: str
    title: str
    description: str
    parameters: tuple[Parameter, ...]
    text: str
    statement: tuple[Piece, ...]
    built_in: bool = False

    @property
    def usage(self) -> str:
        """The command line that runs it, the optional parameters in brackets."""
        words = [
            f"-p {p.name}={str(p.type).upper()}" if p.required else f"[-p {p.name}={str(p.type).upper()}]"
            for p in self.parameters
        ]
        return " ".join(["harborctl report", self.name, *words])


def bind(report: Report, given: Iterable[str], now: datetime) -> dict[str, Value]:
    """The value of each parameter of `report`, from words such as `threshold=5` and the defaults.

    A list may be given in one word, `ids=1,2`, or in several, `ids=1 ids=2`. `now` is what `today` is reckoned from.

    Raises:
        UsageError: a word is no such pair, names no parameter, or has a value of another type; one that is required is
            missing.
    """
    from harborctl.reports.values import BadValue

    parameters = {parameter.name: parameter for parameter in report.parameters}
    values: dict[str, Value] = {}
    for word in given:
        name, equals, text = word.partition("=")
        name = name.strip()
        if not equals:
            raise _wrong(f"{word!r} is not a parameter", hint="Write it as -p name=value.")
        if name not in parameters:
            raise _unknown(report, name)
        parameter = parameters[name]
        try:
            value = parameter.given(text, now)
        except BadValue as error:
            raise _wrong(
                f"parameter {name} must be {error}, and {text!r} is not", value=text, hint=_about(parameter)
            ) from None
        earlier = values.get(name)
        if isinstance(earlier, list) and isinstance(value, list):
            earlier.extend(value)
        elif name in values:
            raise _wrong(f"parameter {name} is given twice", hint=f"It is one {parameter.type}.")
        else:
            values[name] = value
    missing = [p for p in report.parameters if p.required and p.name not in values]
    if missing:
        names = ", ".join(p.name for p in missing)
        raise _wrong(
            f"report {report.name} needs {'parameter' if len(missing) == 1 else 'parameters'} {names}",
            code="missing_parameter",
            hint=f"Usage: {report.usage}",
        )
    for parameter in report.parameters:
        if parameter.name not in values:
            values[parameter.name] = parameter.default_value(now)
    return values


def _about(parameter: Parameter) -> str:
    return f"{parameter.name} is of type {parameter.type}" + (f": {parameter.help}." if parameter.help else ".")


def _unknown(report: Report, name: str) -> UsageError:
    names = [parameter.name for parameter in report.parameters]
    hint = nearest_or_all(name, names) or "It takes none."
    return _wrong(f"report {report.name} has no parameter {name!r}", code="unknown_parameter", hint=hint)


def _wrong(message: str, *, hint: str | None, code: str = "bad_parameter", value: str | None = None) -> UsageError:
    return UsageError(message, code=code, hint=hint, value=value)
