"""Puts a result into a stream of bytes, in any format: the one place that knows which module writes which."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from harborctl.reports.formats import PICTURES, Format
from harborctl.reports.render import csv_header, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.reports.chart import ChartOptions, Points
    from harborctl.reports.render import Layout
    from harborctl.reports.result import Result

# Of a chart that goes to no terminal.
CHART_WIDTH = 80


def write(result: Result, output: Format, layout: Layout, chart: ChartOptions | None, stream: IO[bytes]) -> None:
    """Write the result, or a chart of it: instead of a table, on top of an HTML page, or as the picture itself.

    Raises:
        UsageError: an extra is not installed, or the chart is of no column of numbers.
        HarborctlError: the format cannot hold the result.
    """
    points = None
    if chart is not None:
        from harborctl.reports.chart import watched

        result, points = watched(result, chart)
    if points is not None and (output is Format.TABLE or output in PICTURES):
        _draw(result, points, output, layout, stream)
    elif output is Format.PARQUET:
        from harborctl.reports.parquet import write_parquet

        write_parquet(result, stream)
    elif output is Format.XLSX:
        from harborctl.reports.xlsx import write_xlsx

        write_xlsx(result, layout.title, stream)
    elif output is Format.CSV and result.lines is not None:
        stream.write(csv_header(result.columns).encode())
        stream.writelines(result.lines())
    else:
        stream.writelines(part.encode() for part in _text(result, output, layout, points))


def _draw(result: Result, points: Points, output: Format, layout: Layout, stream: IO[bytes]) -> None:
    for _ in result.batches:  # each becomes points on its way
        pass
    if output is Format.TABLE:
        from harborctl.reports.chart import drawn

        stream.writelines(line.encode() for line in drawn(points, layout.width or CHART_WIDTH))
        return
    from harborctl.reports.picture import png, svg

    stream.write(png(points) if output is Format.PNG else svg(points))


def _text(result: Result, output: Format, layout: Layout, points: Points | None) -> Iterator[str]:
    if output is not Format.HTML:
        return render(result, output, layout)
    from harborctl.reports.html import html

    return html(result, layout.title, layout.description, _figure(points))


def _figure(points: Points | None) -> Iterator[str]:
    """The chart of an HTML page. Its points are complete when it is asked for."""
    if points is not None and points.values:
        from harborctl.reports.picture import inline_svg

        yield f"<figure>\n{inline_svg(points)}</figure>\n"
