"""An inspection as one HTML page that needs nothing else, for light and dark, as reports have them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from harborctl.plain_text import visible
from harborctl.reports.html import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harborctl.inspection.fit import Fit
    from harborctl.inspection.inspect import Inspection
    from harborctl.inspection.profile import ColumnReport

_STYLE = """
body { display: block }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; overflow-wrap: anywhere }
h2 code, .type { color: var(--mark) }
div.wide { overflow-x: auto }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; margin: 0 }
dt { color: var(--dim) }
dd { margin: 0; overflow-wrap: anywhere }
th { padding: .45rem .75rem; font-weight: 600; white-space: nowrap }
.bars { display: grid; grid-template-columns: minmax(4rem, 14rem) 1fr max-content; gap: .15rem .6rem; max-width: 44rem;
        margin-top: .6rem; font-variant-numeric: tabular-nums }
.bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.bar { background: var(--mark); height: .8em; align-self: center; min-width: 1px; border-radius: 2px }
ul.warnings { padding-left: 1.1rem; margin: .4rem 0 }
pre { background: var(--head); padding: .8rem 1rem; overflow-x: auto; border-radius: 4px }
"""


def page(inspection: Inspection, fit: Fit | None) -> Iterator[str]:
    """The page in parts."""
    title = escape(visible(inspection.path))
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    )
    yield f"<p>{escape(summary_line(inspection))}</p>\n{_list(inspection.warnings)}"
    if inspection.first_rows:
        rows = [("",) * 0, *inspection.first_rows][1:]
        yield "<h2>First rows</h2>\n" + _table([column.name for column in inspection.columns], rows)
    if inspection.ddl:
        yield f"<h2>The table that it would get</h2>\n<pre>{escape(inspection.ddl)}</pre>\n"
    if fit is not None:
        yield f"<h2>Into {escape(visible(fit.table))}</h2>\n<p>{escape(fit_line(fit))}</p>\n"
        yield _table(["file", "table", "type"], [(goes.source, goes.target, goes.type) for goes in fit.columns])
        if fit.reasons:
            reasons = [
                (f"{reason.count:,}", reason.code, reason.column, reason.message, f"line {reason.line}")
                for reason in fit.reasons
            ]
            yield _table(["rows", "code", "column", "reason", "first"], reasons)
    for column in inspection.columns:
        yield from _column(column)
    yield "</body>\n</html>\n"


def summary_line(inspection: Inspection) -> str:
    """Format, size, dialect and rows, in a line."""
    parts = [inspection.format + (f" in {inspection.compression}" if inspection.compression else "")]
    if inspection.bytes is not None:
        parts.append(f"{inspection.bytes:,} bytes")
    if inspection.encoding:
        parts.append(inspection.encoding)
    if inspection.delimiter:
        parts.append("delimiter " + {"\t": "tab"}.get(inspection.delimiter, inspection.delimiter))
    if inspection.header is False:
        parts.append("no header")
    rows = f"{inspection.rows:,} row{'' if inspection.rows == 1 else 's'}"
    parts.append(rows if inspection.complete else f"the first {rows}")
    parts.append(f"{len(inspection.columns):,} columns")
    return ", ".join(parts)


def fit_line(fit: Fit) -> str:
    """What became of the rows."""
    return f"Of {fit.rows:,} rows {fit.inserted:,} would go in, and {fit.rejected:,} would be rejected."


def _list(warnings: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(visible(warning))}</li>" for warning in warnings)
    return f'<ul class="warnings">{items}</ul>\n' if items else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str | None]]) -> str:
    head = "".join(f'<th scope="col">{escape(visible(name))}</th>' for name in heads)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n'


def _cell(text: str | None) -> str:
    return '<td class="null">NULL</td>' if text is None else f"<td>{escape(visible(text))}</td>"


def _column(column: ColumnReport) -> Iterator[str]:
    yield f'<h2>{escape(visible(column.name))} <span class="type">{escape(column.type)}</span></h2>\n'
    facts = [
        ("not narrower", column.why),
        ("NULL", f"{column.nulls:,}"),
        ("distinct", f"≈ {column.distinct:,}"),
        ("least", column.least),
        ("most", column.most),
        ("longest", f"{column.longest:,} characters"),
    ]
    yield (
        "<dl>" + "".join(f"<dt>{name}</dt><dd>{escape(visible(text))}</dd>" for name, text in facts if text) + "</dl>\n"
    )
    yield _list(column.warnings)
    most = max((bar.rows for bar in column.histogram), default=0)
    if most:
        bars = "".join(
            f'<span title="{escape(visible(bar.label))}">{escape(visible(bar.label)) or "&nbsp;"}</span>'
            f'<div><div class="bar" style="width:{100 * bar.rows / most:.1f}%"></div></div><span>{bar.rows:,}</span>'
            for bar in column.histogram
        )
        yield f'<div class="bars">{bars}</div>\n'
