"""Words for numbers, sizes, times and addresses on pages."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from markupsafe import Markup, escape

from videoqa.contract import redact_url

__all__ = [
    "format_address",
    "format_age",
    "format_bytes",
    "format_count",
    "format_duration",
    "format_percent",
    "format_prose",
    "format_time",
]

NONE = "\N{EN DASH}"
"""Stands where there is no value."""
_SPACE = "\N{NO-BREAK SPACE}"
_CODE = re.compile(r"`([^`]+)`")


def format_count(number: float | None) -> str:
    """Returns a number with commas between thousands; fractions below ten keep one digit."""
    if number is None:
        return NONE
    if number != int(number) and 0.05 <= abs(number) < 10:
        return f"{number:.1f}"
    return f"{round(number):,}"


def format_bytes(number: float | None) -> str:
    """Returns a size in the largest decimal unit that fits."""
    if number is None:
        return NONE
    units = iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while abs(number) >= 999.5 and unit != "TB":
        number, unit = number / 1000, next(units)
    has_digit = unit != "B" and abs(number) < 9.95
    return f"{number:.1f}{_SPACE}{unit}" if has_digit else f"{number:,.0f}{_SPACE}{unit}"


def format_duration(seconds: float | None) -> str:
    """Returns a duration in at most two units; never a negative one."""
    if seconds is None:
        return NONE
    seconds = max(0.0, seconds)
    if 0 < seconds < 0.9995:
        return f"{seconds * 1000:.0f}{_SPACE}ms"
    if 0 < seconds < 9.95:
        return f"{seconds:.1f}{_SPACE}s"
    return format_age(seconds, rest_of_minutes=True)


def format_age(seconds: float, *, rest_of_minutes: bool = False) -> str:
    """Returns an age as words: seconds, minutes, hours and minutes, or days and hours; never negative.

    `formatAge` of static/app.js counts on in the same words.
    """
    whole = max(0, round(seconds) if rest_of_minutes else int(seconds))
    if whole < 60:
        return f"{whole}{_SPACE}s"
    if whole < 3600:
        return _join(whole // 60, "min", whole % 60 if rest_of_minutes else 0, "s")
    if whole < 86_400:
        return _join(whole // 3600, "h", whole % 3600 // 60, "min")
    return _join(whole // 86_400, "d", whole % 86_400 // 3600, "h")


def _join(first: int, unit: str, second: int, smaller: str) -> str:
    rest = f"{_SPACE}{second}{_SPACE}{smaller}" if second else ""
    return f"{first}{_SPACE}{unit}{rest}"


def format_percent(share: float | None) -> str:
    """Returns a share of 1 as percent."""
    return NONE if share is None else f"{share * 100:.0f}{_SPACE}%"


def format_time(at: datetime) -> str:
    """Returns a time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def format_address(url: str) -> str:
    """Returns a URL without credentials and query."""
    return redact_url(url)


def format_prose(words: str) -> Markup:
    """Returns escaped words, with `code` between backquotes as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(words))))  # noqa: S704 escaped before
