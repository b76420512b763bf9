"""The help of the command line: usage as it is written, options and commands under headings, in colours.

It is as wide as the terminal, up to `MAX_WIDTH`. Colours come on a terminal only, and not with NO_COLOR.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from videoqa.terminal import trust

__all__ = ["MAX_WIDTH", "App", "TopGroup"]

Function = TypeVar("Function", bound=Callable[..., Any])

MAX_WIDTH = 140
"""Columns beyond which a line of text is hard to follow."""
_LONGEST_LINE = 200
"""Characters of a command's first sentence: longer than any, so that none is cut off."""
_GENERAL = "Options"
_HEADINGS = ("Frames", "Answer", "Job")
"""Headings of options, in the order of every command."""
_GROUPS = {
    "Start": ("demo", "up", "login", "logout", "doctor"),
    "Ask": ("ask", "caption", "frames"),
    "Jobs": ("submit", "status", "wait", "result", "watch", "list", "cancel", "retry"),
    "Operate": ("worker", "workers", "queue", "dead", "usage"),
    "Gateway": ("gateway", "keys", "webhooks"),
}
"""Commands by heading, in the order in which a new user meets them. Those of the worker come by entry points,
so a command cannot state its own heading."""


def _has_colours() -> bool:
    unwanted = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    return sys.stdout.isatty() and not unwanted


def _style(text: str, **how: Any) -> str:
    return typer.style(text, **how) if _has_colours() else text


def _write_usage(ctx: Any, pieces: list[str], formatter: Any) -> None:
    prefix = _style("Usage:", bold=True) + " "
    formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=prefix)


def _write_sections(sections: dict[str, list[tuple[str, str]]], formatter: Any) -> None:
    for heading, rows in sections.items():
        if rows:
            with formatter.section(_style(heading, bold=True)):
                formatter.write_dl([(_style(name, fg="cyan"), text) for name, text in rows])


def _list_options(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:
    """Lists the options of a command under the headings that they name; those without one come last."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in command.get_params(ctx):
        record = None if _is_argument(param) else param.get_help_record(ctx)
        if record is not None:
            sections.setdefault(getattr(param, "rich_help_panel", None) or _GENERAL, []).append(
                record
            )
    order = [
        *_HEADINGS,
        *(name for name in sections if name not in (*_HEADINGS, _GENERAL)),
        _GENERAL,
    ]
    return {name: sections.get(name, []) for name in order}


class _OwnStyles:
    """The part of a command that writes its help, past the guard of the terminal."""

    def get_help(self, ctx: Any) -> str:
        """Returns the help."""
        return trust(super().get_help(ctx))  # type: ignore[misc]

    def get_usage(self, ctx: Any) -> str:
        """Returns the usage line."""
        return trust(super().get_usage(ctx))  # type: ignore[misc]


class _Command(_OwnStyles, TyperCommand):
    """A command whose help shows each argument by its metavar, without braces and types around it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the parts of the usage line after the command's name."""
        return ["[OPTIONS]", *(_show_argument(one) for one in self.params if _is_argument(one))]

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Writes the usage line."""
        _write_usage(ctx, self.collect_usage_pieces(ctx), formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections of arguments and options."""
        arguments = [
            (_show_argument(one), one.help or "")  # type: ignore[attr-defined]
            for one in self.get_params(ctx)
            if _is_argument(one)
        ]
        _write_sections({"Arguments": arguments, **_list_options(self, ctx)}, formatter)


class Group(_OwnStyles, TyperGroup):
    """A group of commands, whose help shows the whole first sentence of each."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Writes the usage line."""
        _write_usage(ctx, self.collect_usage_pieces(ctx), formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections of options and commands."""
        _write_sections(_list_options(self, ctx), formatter)
        sections = {
            heading: [
                (name, self.commands[name].get_short_help_str(_LONGEST_LINE)) for name in names
            ]
            for heading, names in self.group_commands(self.list_commands(ctx)).items()
        }
        _write_sections(sections, formatter)

    def group_commands(self, names: list[str]) -> dict[str, list[str]]:
        """Returns the names of the commands under their headings."""
        return {"Commands": names}


class TopGroup(Group):
    """The group of all commands, under the headings of their use."""

    def group_commands(self, names: list[str]) -> dict[str, list[str]]:
        """Returns the names under their headings; commands of other packages come last."""
        known = {name for group in _GROUPS.values() for name in group}
        groups = {
            heading: [name for name in group if name in names] for heading, group in _GROUPS.items()
        }
        groups["Others"] = [name for name in names if name not in known]
        return groups


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _show_argument(param: Any) -> str:
    return str(param.metavar or param.name.upper())


class App(typer.Typer):
    """A Typer application whose commands have the help of this module."""

    def __init__(self, **options: Any) -> None:
        """Takes the options of `typer.Typer`."""
        settings = {"max_content_width": MAX_WIDTH, **options.pop("context_settings", {})}
        super().__init__(**{"cls": Group, "context_settings": settings, **options})

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Returns the decorator that adds a command."""
        return super().command(name, **{"cls": _Command, **options})
