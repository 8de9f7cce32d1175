"""The options of commands that tell others how they went; `jobs.notify` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TOLD = "Who else is told"

MetricsOption = Annotated[
    Path | None,
    typer.Option(
        "--metrics-file",
        metavar="PATH",
        help="Write Prometheus metrics there, for node_exporter's textfile collector.",
        rich_help_panel=TOLD,
    ),
]
PingOption = Annotated[
    str | None,
    typer.Option(
        "--ping",
        metavar="URL",
        help="Call URL/start, then URL or URL/fail, as healthchecks.io has it.",
        rich_help_panel=TOLD,
    ),
]
