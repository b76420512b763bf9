"""HTML elements whose text is escaped."""

from __future__ import annotations

import html
import re

__all__ = ["Html", "element", "join", "render_line", "render_text"]

_VOID = ("meta", "link")
_CODE = re.compile(r"`([^`]*)`")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, /, *children: str, **attributes: str) -> Html:
    """Makes an element; a trailing underscore of an attribute's name is dropped (`class_`)."""
    given = "".join(
        f' {each.rstrip("_")}="{html.escape(value)}"' for each, value in attributes.items()
    )
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Joins elements and texts."""
    return Html("".join(each if isinstance(each, Html) else html.escape(each) for each in children))


def render_text(text: str) -> Html:
    """Renders paragraphs, lists with `- ` and code in backticks."""
    found = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("- "):
            items = re.split(r"\n(?=- )", block)
            found.append(element("ul", *(element("li", render_line(each[2:])) for each in items)))
        elif block:
            found.append(element("p", render_line(block)))
    return join(*found)


def render_line(text: str) -> Html:
    """Renders a line with code in backticks."""
    parts = _CODE.split(text)
    return join(
        *(element("code", part) if n % 2 else part for n, part in enumerate(parts)),
    )
