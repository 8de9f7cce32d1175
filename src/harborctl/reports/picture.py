"""Draws a chart as SVG or PNG, through Matplotlib (the extra `charts`).

Matplotlib was chosen because it has drawn both for twenty years without a browser, and writes the same bytes for the
same points. Only its figure is used: no pyplot, no window, no global state.
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

from harborctl.errors import UsageError

if TYPE_CHECKING:
    from harborctl.reports.chart import Points

# In the page the text takes the page's colour, light or dark; these stand in for it.
_TEXT = "#010203"
_GRID = "#040506"
_BAR = "#3f7fbf"
_FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans", "Hiragino Sans", "Microsoft YaHei", "Arial Unicode MS")


def png(points: Points) -> bytes:
    """A picture with a white background."""
    return _drawn(points, "png", text="#222222", grid="#dddddd")


def svg(points: Points) -> bytes:
    """As `png`, of any size."""
    return _drawn(points, "svg", text="#222222", grid="#dddddd")


def inline_svg(points: Points) -> str:
    """An `<svg>` element without a background, which takes the colours of the page."""
    text = _drawn(points, "svg", text=_TEXT, grid=_GRID, transparent=True).decode()
    text = text[text.index("<svg") :]
    return text.replace(_TEXT, "currentColor").replace(_GRID, "var(--line)").replace(_BAR, "var(--mark)")


def _drawn(points: Points, output: str, *, text: str, grid: str, transparent: bool = False) -> bytes:
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.font_manager import fontManager
    except ImportError:
        raise UsageError(
            "pictures of charts need the extra `charts`",
            code="no_extra",
            hint="pip install 'harborctl[charts]'; --chart alone draws in the terminal.",
        ) from None
    # Where it keeps its cache, and that a font lacks a character, is not for our users.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    installed = set(fontManager.get_font_names())
    settings: Any = {
        "font.family": [name for name in _FONTS if name in installed] or ["sans-serif"],
        "svg.fonttype": "none",
        "svg.hashsalt": "harborctl",
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), text),
        **dict.fromkeys(("axes.edgecolor", "grid.color"), grid),
        "text.parse_math": False,
        "axes.unicode_minus": False,
    }
    stream = io.BytesIO()
    with warnings.catch_warnings(), mpl.rc_context(settings):
        warnings.simplefilter("ignore")
        height = 4.2 if points.over_time else min(max(1.4 + 0.28 * len(points.values), 2.2), 60)
        figure = Figure(figsize=(9, height), layout="constrained")
        axes = figure.add_subplot()
        if points.over_time:
            moments: Any = points.by_time()
            values = [float("nan") if value is None else value for _, value in moments]
            moments = [moment for moment, _ in moments]
            axes.plot(moments, values, color=_BAR, linewidth=1.8)
            axes.grid(axis="y")
            figure.autofmt_xdate()
        else:
            places = range(len(points.values))
            axes.barh(places, [value or 0.0 for value in points.values], color=_BAR, height=0.7)
            axes.set_yticks(places, [_short(label) for label in points.labels])
            axes.margins(y=0.02)
            axes.invert_yaxis()
            axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_title(_short(points.title, 80), loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        # The date of the drawing would make each file another.
        metadata = {"Date": None} if output == "svg" else {"Software": None}
        figure.savefig(stream, format=output, dpi=144, transparent=transparent, metadata=metadata)
    return stream.getvalue()


def _short(text: str, most: int = 40) -> str:
    clean = "".join(character if character.isprintable() else " " for character in text)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
