"""What `--help` shows: flags without a type, and of a command with many options the usual ones."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL = "--help-all"
_WANTS_ALL = "harborctl.help_all"
_SHORTENED = ("hidden", "rich_help_panel", "show_default", "help", "metavar")


def _without_types_of_flags(parameters: list[Any]) -> list[Any]:
    for each in parameters:
        if isinstance(each, TyperOption) and each.is_flag and each.metavar is None:
            each.metavar = ""
    return parameters


class Group(TyperGroup):
    """A command of ours that has commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, with nothing where it shows `<bool>`."""
        return _without_types_of_flags(super().get_params(ctx))


class Command(TyperCommand):
    """A command of ours."""

    # Names of the parameters that `--help` shows; empty for all.
    usual: frozenset[str] = frozenset()
    # Behind a short help.
    short_epilog = ""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's, with nothing where it shows `<bool>`."""
        return _without_types_of_flags(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Typer's, or the short one."""
        if not self.usual or _WANTS_ALL in ctx.meta:
            super().format_help(ctx, formatter)
            return
        with self._shortened(ctx):
            super().format_help(ctx, formatter)

    @contextmanager
    def _shortened(self, ctx: Any) -> Iterator[None]:
        """Only the usual options, in one panel, a sentence each, and the titles of the panels that have the others."""
        options = [each for each in self.get_params(ctx) if isinstance(each, TyperOption) and not each.hidden]
        before = [(each, {name: getattr(each, name) for name in _SHORTENED}) for each in options]
        help_text, epilog = self.help, self.epilog
        panels = [each.rich_help_panel for each in options if each.name not in self.usual and each.rich_help_panel]
        groups = "; ".join(dict.fromkeys(re.split("[:,]", title)[0] for title in panels))
        self.help = (self.help or "").partition("\n\n")[0]
        self.epilog = f"[bold]{ALL}[/bold] shows all options. The other groups: {groups}.\n\n{self.short_epilog}"
        for each in options:
            each.hidden, each.rich_help_panel, each.show_default = each.name not in self.usual, None, False
            each.help = (each.help or "").split(". ")[0].split(" \\[")[0].removesuffix(".") + "."
            if each.type_descriptor.is_choice and each.metavar is None:
                each.help = f"{each.help.removesuffix('.')}: {', '.join(map(str, each.type_descriptor.choices or ()))}."
                each.metavar = (each.name or "").upper()
        try:
            yield
        finally:
            self.help, self.epilog = help_text, epilog
            for each, values in before:
                for name, value in values.items():
                    setattr(each, name, value)


def command_with(usual: frozenset[str], short_epilog: str) -> type[Command]:
    """A command whose `--help` shows these options, and `--help-all` all of them."""
    return type("ShortHelpCommand", (Command,), {"usual": usual, "short_epilog": short_epilog.strip()})


def _print_all(context: typer.Context, wanted: bool) -> None:
    if wanted:
        context.meta[_WANTS_ALL] = True
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit


HelpAllOption = Annotated[
    bool, typer.Option(ALL, help="Show all options.", is_eager=True, expose_value=False, callback=_print_all)
]
