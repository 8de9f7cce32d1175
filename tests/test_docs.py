"""README, docs/ and `--help` name the same commands, options and make targets. `python -m tests.test_docs` writes
docs/commands.md anew."""

from __future__ import annotations

import inspect
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from harborctl.cli.app import app
from harborctl.cli.invocation import COMMON

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "docs" / "commands.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Options of other programs, and Typer's own.
FOREIGN = {"--now", "--install-completion", "--version", "--help"}

Named = dict[str, Any]


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Each command that can be called, by its name."""
    if not hasattr(group, "commands"):
        yield " ".join(path), group
        return
    for name, each in group.commands.items():
        yield from commands(each, (*path, name))


ALL: Named = dict(commands(get_command(app)))


def flags(command: Any) -> set[str]:
    """The options that it takes."""
    return {flag for parameter in command.params for flag in parameter.opts if flag.startswith("-")}


def reference() -> str:
    """All commands and options as docs/commands.md has them."""
    lines = ["# Commands", "", "What `--help` says, on one page."]
    for name, command in [(COMMON, ALL["load"]), *ALL.items()]:
        wanted = [each for each in command.params if (each.rich_help_panel == COMMON) == (name == COMMON)]
        arguments = " ".join(f"{each.metavar} " for each in wanted if each.param_type_name == "argument")
        lines += ["", f"## {name}"]
        if name != COMMON:
            lines += ["", f"`harborctl {name} {arguments}[OPTIONS]`", "", inspect.cleandoc(command.help)]
        context = command.make_context(name, [], resilient_parsing=True)
        lines += ["", "| option | meaning |", "|---|---|"] if wanted else []
        lines += [_row(each, *each.get_help_record(context)) for each in wanted]
    return "\n".join(lines) + "\n"


def _row(parameter: Any, name: str, meaning: str) -> str:
    name = parameter.metavar if parameter.param_type_name == "argument" else name
    name, meaning = name.replace("|", r"\|"), meaning.replace("\\[", "[").replace("  [", " [").replace("<", r"\<")
    return f"| `{name}` | {meaning} |"


def test_the_reference_is_what_help_says() -> None:
    assert COMMANDS.read_text(encoding="utf-8") == reference(), "run `python -m tests.test_docs`"


def code_of(page: Path) -> list[str]:
    """What a page has as code: command lines of blocks, and what is between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_only_commands_and_options_that_there_are(page: Path) -> None:
    known = set.union(*(flags(command) for command in ALL.values())) | FOREIGN
    for code in code_of(page):
        for line in re.findall(r"(?:^|[|$] ?|&& )harborctl ((?:[^|&;#]|\d;)*)", code):
            words = line.split()
            named = [words[:length] for length in (2, 1) if " ".join(words[:length]) in ALL]
            is_group = any(name.startswith(f"{words[0]} ") for name in ALL) if words else False
            assert named or is_group or not words or words[0].startswith("-"), (page, code)
            if named:
                taken = flags(ALL[" ".join(named[0])]) | FOREIGN
                assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", line)) <= taken, (page, code)
        if not code.startswith(("make ", "pip ", "python ")):
            assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) <= known, (page, code)


def test_examples_in_the_help_work() -> None:
    for name, command in ALL.items():
        for line in re.findall(r"harborctl ([^|\n]*)", command.epilog or ""):
            assert line.startswith(name), (name, line)
            assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.partition(" -- ")[0])) <= flags(command), line


def test_pages_name_make_targets_that_there_are_and_make_help_names_all() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.search(r"^\.PHONY: (.*)$", made, re.MULTILINE)[1].split())  # type: ignore[index]
    helped = set(re.findall(r"@echo 'make (\w+)", made))
    assert helped == targets - {"help", "stale"}
    for page in [*PAGES, ROOT / ".github" / "workflows" / "test.yml", ROOT / ".ci" / "run"]:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`|run: )make ([a-z-]+)", text, re.MULTILINE)) <= targets, page


@pytest.mark.parametrize("target", ["demo", "test", "bench"])
def test_targets_do_something(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "Nothing to be done" not in done.stdout, done


if __name__ == "__main__":
    COMMANDS.write_text(reference(), encoding="utf-8")
