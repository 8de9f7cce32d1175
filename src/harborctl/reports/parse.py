"""Reads a `.sql` report: a header of comments, then exactly one SELECT or WITH … SELECT.

::

    -- title: Variants running low
    -- description: Variants whose free stock is under a threshold, worst first.
    -- param: threshold integer = 5 [0..]   Stock level below which a variant is listed

A parameter is `name type`, `= default` if it may be left out, `[low..high]` if it is a number with bounds, and an
explanation. Two spaces end a default that has spaces in it, as do quotes: `= 'in stock'`; `= null` is NULL. A comment
that is indented further goes on with the line above it. Other comments are comments. Nothing here knows a database.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING

from harborctl.errors import Location, StatementFailed, UsageError
from harborctl.reports.lexer import NAME, NotSql, Token, line_and_column, pieces, tokens
from harborctl.reports.moments import local_now
from harborctl.reports.report import Parameter, Report
from harborctl.reports.values import TYPE_NAMES, BadValue, Bounds, ParameterType, parameter_type
from harborctl.sqlstate import READ_ONLY_SQL_TRANSACTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.errors import HarborctlError

_FIELD = re.compile(r"--\s*(?P<key>title|description|param)\s*:\s*(?P<value>.*)", re.IGNORECASE)
_CONTINUED = re.compile(r"--(?: {2,}|\t)\s*(?P<value>\S.*)")
# Types of several words are read to their end: what stands behind a type is taken for the explanation.
_TYPE = (
    r"(?:timestamp(?:\s*\([^)]*\))?\s+with(?:out)?\s+time\s+zone|double\s+precision|character\s+varying"
    r"|interval\s+\w+\s+to\s+\w+|[A-Za-z_]\w*)(?:\s*\([^)]*\))?(?:\s*\[\s*\])?"
)
_PARAMETER = re.compile(rf"(?P<name>{NAME})\s+(?P<type>{_TYPE})(?=\s|=|\[|$)\s*(?P<rest>.*)", re.IGNORECASE)
_NUMBER = r"-?\d+(?:\.\d+)?"
# Behind the default, or behind the type.
_BOUNDS = re.compile(
    rf"(?P<before>(?:=\s*\S+\s+)?)\[\s*(?P<low>{_NUMBER})?\s*\.\.\s*(?P<high>{_NUMBER})?\s*\](?=\s|$)\s*", re.ASCII
)
_DEFAULT = re.compile(r"=\s*(?:'(?P<quoted>(?:[^']|'')*)'(?=\s|$)|(?P<bare>\S+(?: \S+)*))\s*(?P<help>.*)")

_READS = ("SELECT", "WITH", "VALUES", "TABLE")
_WRITES = ("INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "CREATE", "ALTER", "DROP", "COPY", "CALL", "DO")


def parse_report(name: str, file: str, text: str, further: Sequence[Parameter] = ()) -> Report:
    """The report that `text` is. `name` is what it goes by, `file` where it stands, for messages; `further` are
    parameters that it has if it does not declare them itself.

    Raises:
        UsageError: it is not a report.
        StatementFailed: its statement would write.
    """
    text = text.removeprefix("\ufeff")
    parser = _Parser(name, file, text, further)
    return parser.report()


class _Parser:
    """One file on its way to a report. Knows where it is, for messages."""

    def __init__(self, name: str, file: str, text: str, further: Sequence[Parameter]) -> None:
        self.name = name
        self.further = further
        self.file = file
        self.text = text

    def report(self) -> Report:
        if "\0" in self.text:
            raise self.wrong("a NUL character has no place in SQL", self.text.index("\0"))
        try:
            parts = list(tokens(self.text))
        except NotSql as error:
            raise self.wrong(str(error), error.offset) from None
        statement = self.one_statement(parts)
        title, description, parameters = self.header(parts)
        declared = {each.name for each in parameters}
        parameters += {each.name: each for each in self.further if each.name not in declared}.values()
        self.check_uses(statement, parameters)
        return Report(
            name=self.name,
            file=self.file,
            title=title or self.name,
            description=description,
            parameters=tuple(parameters),
            text=self.text,
            statement=pieces(statement),
        )

    def one_statement(self, parts: list[Token]) -> list[Token]:
        """The tokens up to the first semicolon, behind which nothing may come."""
        end = next((index for index, token in enumerate(parts) if token.kind == "semicolon"), len(parts))
        statement = parts[:end]
        said = [token for token in statement if not token.blank]
        if not said:
            raise self.wrong("there is no statement", len(self.text), hint="A report is one SELECT or WITH … SELECT.")
        for token in parts[end + 1 :]:
            if not token.blank and token.kind != "semicolon":
                raise self.wrong("a second statement begins here", token.offset, hint="A report is exactly one SELECT.")
        self.check_parentheses(said)
        first = next((token for token in said if token.text != "("), said[0])
        keyword = first.text.upper()
        if keyword in _WRITES:
            # The server would say so too, but this needs none.
            raise self.located(
                StatementFailed(
                    f"a report may only read, and this one begins with {keyword}",
                    code=READ_ONLY_SQL_TRANSACTION,  # read_only_sql_transaction
                    hint="A report is one SELECT or WITH … SELECT.",
                ),
                first.offset,
            )
        if keyword not in _READS:
            raise self.wrong(
                f"a report is one SELECT or WITH … SELECT, and this one begins with {first.text}",
                first.offset,
                hint="Above it only comments, such as -- title: …, may stand.",
            )
        return statement

    def check_parentheses(self, said: list[Token]) -> None:
        """Each that closes was opened: the statement goes between parentheses, and must not leave them."""
        depth = 0
        for token in said:
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth < 0:
                raise self.wrong("a parenthesis closes here that was not opened", token.offset)

    def header(self, parts: list[Token]) -> tuple[str, str, list[Parameter]]:
        """The fields of the comments above the statement."""
        fields = self.fields(parts)
        once: dict[str, str] = {}
        parameters: list[Parameter] = []
        for key, value, offset in fields:
            if key == "param":
                parameter = self.parameter(value, offset)
                if any(other.name == parameter.name for other in parameters):
                    raise self.wrong(f"parameter {parameter.name} is declared twice", offset)
                parameters.append(parameter)
            elif key in once:
                raise self.wrong(f"there is a second {key}", offset)
            else:
                once[key] = value
        return once.get("title", ""), once.get("description", ""), parameters

    def fields(self, parts: list[Token]) -> list[tuple[str, str, int]]:
        """The header's fields: key, value and offset."""
        fields: list[tuple[str, str, int]] = []
        goes_on = False
        for token in parts:
            if not token.blank:
                break
            if token.kind != "comment":
                continue
            field = _FIELD.fullmatch(token.text.rstrip())
            more = _CONTINUED.fullmatch(token.text.rstrip())
            if field:
                fields.append((field["key"].lower(), field["value"].strip(), token.offset))
                goes_on = True
            elif more and goes_on:
                key, value, offset = fields[-1]
                fields[-1] = (key, f"{value} {more['value']}".strip(), offset)
            else:
                goes_on = False
        return fields

    def parameter(self, text: str, offset: int) -> Parameter:
        match = _PARAMETER.fullmatch(text)
        if match is None:
            raise self.wrong(
                f"{text!r} does not declare a parameter",
                offset,
                hint="Write -- param: name type = default   explanation.",
            )
        if "(" in match["type"]:
            raise self.wrong(
                f"parameter {match['name']} has the type {match['type']}, and lengths and digits are not looked at",
                offset,
                hint=f"Declare it without them, and cast in the statement: :{match['name']}::{match['type']}.",
            )
        declared = parameter_type(match["type"])
        if declared is None:
            raise self.wrong(
                f"parameter {match['name']} has the unknown type {match['type']}",
                offset,
                hint=f"Types are {', '.join(TYPE_NAMES)}, and lists of them such as integer[].",
            )
        rest, bounds = self.bounds(match["name"], declared, match["rest"], offset)
        if not rest.startswith("="):
            return Parameter(match["name"], declared, required=True, default=None, help=rest.strip(), bounds=bounds)
        default, explanation = self.default(match["name"], declared, rest, offset)
        parameter = Parameter(match["name"], declared, required=False, default=default, help=explanation, bounds=bounds)
        try:
            parameter.default_value(local_now())
        except BadValue as error:
            raise self.wrong(
                f"the default of parameter {parameter.name} must be {error}, and {default!r} is not", offset
            ) from None
        return parameter

    def bounds(self, name: str, declared: ParameterType, text: str, offset: int) -> tuple[str, Bounds | None]:
        """What stands behind the type without the bounds, and the bounds."""
        match = _BOUNDS.match(text)
        if match is None:
            return text, None
        low, high = (None if match[side] is None else Decimal(match[side]) for side in ("low", "high"))
        if not declared.is_number:
            raise self.wrong(f"parameter {name} has bounds and is no number", offset, hint="Take [low..high] away.")
        if low is not None and high is not None and low > high:
            raise self.wrong(f"parameter {name} has a lower bound that is above the upper one", offset)
        return match["before"] + text[match.end() :], Bounds(low, high)

    def default(self, name: str, declared: ParameterType, text: str, offset: int) -> tuple[str | None, str]:
        """The default and the explanation in `= 5   How many`."""
        match = _DEFAULT.fullmatch(text)
        if match is None:
            raise self.wrong(f"the default of parameter {name} is missing", offset, hint="An empty text is written ''.")
        if match["quoted"] is not None:
            candidates = [(match["quoted"].replace("''", "'"), match["help"])]
        elif match["bare"].lower() == "null":
            return None, match["help"]
        else:
            word, _, others = match["bare"].partition(" ")
            # `= 5 How many`, with one space only, is not taken for the number "5 How many".
            candidates = [(match["bare"], match["help"]), (word, f"{others}  {match['help']}".strip())]
        for value, explanation in candidates:
            try:
                declared.value(value, local_now())
            except BadValue as error:
                problem = str(error)
            else:
                return value, explanation
        raise self.wrong(f"the default of parameter {name} must be {problem}, and {candidates[0][0]!r} is not", offset)

    def check_uses(self, statement: list[Token], parameters: list[Parameter]) -> None:
        """Every `:name` in the statement is declared. The other way round is no mistake: a report may be half done."""
        declared = {parameter.name for parameter in parameters}
        for token in statement:
            if token.name is not None and token.name not in declared:
                raise self.wrong(
                    f":{token.name} is not declared",
                    token.offset,
                    hint=f"Add -- param: {token.name} TYPE above the statement; a colon that is none of a parameter's"
                    " takes a space behind it.",
                )

    def wrong(self, message: str, offset: int, *, hint: str | None = None) -> HarborctlError:
        return self.located(UsageError(message, code="bad_report", hint=hint), offset)

    def located(self, error: HarborctlError, offset: int) -> HarborctlError:
        error.location = Location(self.file, line_and_column(self.text, offset)[0])
        return error
