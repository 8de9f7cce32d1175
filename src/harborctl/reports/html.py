"""Writes a result as one HTML page that needs nothing else: sortable, for light and dark, at any width.

Pure, as `render`. What is from the database is text on the page, never markup; the page's own policy keeps it from
fetching anything.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from harborctl.reports.result import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.reports.result import Column, Result

STYLE = """
:root { color-scheme: light dark; --line: #d9dde3; --head: #f3f5f8; --dim: #6b7480; --hover: #f6f8fb; --mark: #2a6fb0 }
@media (prefers-color-scheme: dark) {
  :root { --line: #343b44; --head: #1d2229; --dim: #8d97a3; --hover: #1b2027; --mark: #6db0ec }
  body { background: #14181d; color: #dde2e8 }
}
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
       display: flex; flex-direction: column }
h1 { font-size: 1.4rem; margin: 0 0 .25rem }
p { margin: 0 0 1rem; color: var(--dim) }
header { order: -2 }
figure { order: -1; margin: 0 0 1.5rem }
figure svg { max-width: 100%; height: auto; display: block }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 50% }
th, td { padding: .35rem .75rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { background: var(--head); position: sticky; top: 0; padding: 0 }
th button { all: unset; box-sizing: border-box; width: 100%; cursor: pointer; padding: .45rem .75rem; font-weight: 600;
            white-space: nowrap }
th button:focus-visible { outline: 2px solid var(--mark); outline-offset: -2px }
th button::after { content: "\\2195"; color: var(--dim); opacity: .45; padding-left: .4em; font-weight: 400 }
th[aria-sort="ascending"] button::after { content: "\\2191"; color: var(--mark); opacity: 1 }
th[aria-sort="descending"] button::after { content: "\\2193"; color: var(--mark); opacity: 1 }
td { white-space: pre-wrap; overflow-wrap: break-word; max-width: 40rem }
tbody tr:hover { background: var(--hover) }
.n { text-align: right; white-space: nowrap }
th.n button { text-align: right }
.w { white-space: nowrap }
.null { color: var(--dim); font-style: italic }
footer { color: var(--dim); margin-top: .75rem }
@media print { th button::after { content: none } }
"""

# A click sorts up, the next one down; what is equal stays in its order, and NULL stays at the end.
SCRIPT = """
const table = document.querySelector("table"), body = table.tBodies[0];
table.querySelectorAll("th").forEach((head, index) => head.firstChild.addEventListener("click", () => {
  const down = head.getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
  const number = head.classList.contains("n"), words = new Intl.Collator(undefined, {numeric: true});
  const keyed = Array.from(body.rows, row => {
    const cell = row.cells[index], text = cell.textContent;
    return [cell.classList.contains("null"), number ? Number(text.replace(/[^0-9.eE+-]/g, "")) : text, row];
  });
  keyed.sort(([noA, a], [noB, b]) =>
    noA || noB ? noA - noB : sign * (number ? a - b || 0 : words.compare(a, b)));
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...keyed.map(entry => entry[2]));
}));
"""


def html(result: Result, title: str, description: str, picture: Iterator[str]) -> Iterator[str]:
    """The page in parts. `picture` is taken after the last row; where it stands on the page is a matter of style."""
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\';'
        " style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{escape(title)}</h1>\n"
    )
    if description:
        yield f"<p>{escape(description)}</p>\n"
    classes = [_class(column) for column in result.columns]
    heads = [
        f'<th scope="col"{kind}><button>{escape(column.name)}</button></th>'
        for column, kind in zip(result.columns, classes, strict=True)
    ]
    yield f"</header>\n<div>\n<table>\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n"
    count = 0
    for batch in result.batches:
        count += len(batch)
        yield "".join(
            [
                "<tr>" + "".join([_cell(text, kind) for text, kind in zip(row, classes, strict=True)]) + "</tr>\n"
                for row in batch
            ]
        )
    yield "</tbody>\n</table>\n</div>\n"
    yield from picture
    yield f"<footer>{count:,} {'row' if count == 1 else 'rows'}</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"


def _class(column: Column) -> str:
    if column.is_number:
        return ' class="n"'
    whole = column.kind is Kind.TIMESTAMP or column.type in ("date", "uuid", "interval")
    return ' class="w"' if whole and column.delimiter is None else ""


def _cell(text: str | None, kind: str) -> str:
    if text is None:
        return f'<td{kind[:-1]} null">NULL</td>' if kind else '<td class="null">NULL</td>'
    # A character that HTML forbids is shown as what stands for it.
    return f"<td{kind}>{escape(text.translate(_VISIBLE), quote=False)}</td>"


_VISIBLE = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\n\t"}
