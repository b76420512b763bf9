"""The help of the command line: usage as it is written, and commands by the order of their use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand

__all__ = ["App", "group_commands"]

Function = TypeVar("Function", bound=Callable[..., Any])

_GROUPS = {
    "Start": ("demo", "up", "doctor"),
    "Ask": ("ask", "caption", "frames"),
    "Jobs": ("submit", "status", "wait", "result", "watch", "list", "cancel", "retry"),
    "Operate": ("worker", "queue", "dead"),
}
"""Commands by heading, in the order in which a new user meets them. Those of the worker come by entry points,
so a command cannot state its own heading."""


class _Command(TyperCommand):
    """A command whose help shows each argument by its metavar, without braces and types around it."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Returns the parts of the usage line after the command's name."""
        return ["[OPTIONS]", *(_show_argument(one) for one in self.params if _is_argument(one))]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the sections of arguments and options."""
        params: list[Any] = self.get_params(ctx)
        arguments = [(_show_argument(one), one.help) for one in params if _is_argument(one)]
        options = [
            record
            for one in params
            if not _is_argument(one) and (record := one.get_help_record(ctx)) is not None
        ]
        for heading, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _show_argument(param: Any) -> str:
    return str(param.metavar or param.name.upper())


class App(typer.Typer):
    """A Typer application whose commands have the help of this module."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        """Returns the decorator that adds a command."""
        return super().command(name, **{"cls": _Command, **options})


def group_commands(names: list[str]) -> dict[str, list[str]]:
    """Returns the names under their headings; commands of other packages come last."""
    known = {name for group in _GROUPS.values() for name in group}
    groups = {
        heading: [name for name in group if name in names] for heading, group in _GROUPS.items()
    }
    groups["Others"] = [name for name in names if name not in known]
    return {heading: group for heading, group in groups.items() if group}
