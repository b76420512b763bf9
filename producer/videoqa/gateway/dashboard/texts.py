"""Texts of strangers, cut to what a page holds: in HTML a quotation mark takes five bytes, a letter one."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import escape

__all__ = ["MOST_TEXT", "CutText", "TextBudget"]

MOST_TEXT = 4000
"""Characters of one text on a page; the rest is behind a link."""


@dataclass(frozen=True)
class CutText:
    """The beginning of a text, and the number of characters that are left out."""

    text: str
    left_out: int

    def __str__(self) -> str:
        return f"{self.text}\N{HORIZONTAL ELLIPSIS}" if self.left_out else self.text


class TextBudget:
    """Bytes of HTML that the texts of a page, or of one row of it, may take together; earlier ones come first."""

    def __init__(self, left: int) -> None:
        self._left = left

    def cut(self, text: str | None, most: int = MOST_TEXT) -> CutText:
        """Cuts a text to a number of characters, and to what is left of the budget."""
        text = text or ""
        shown = text[:most]
        while (size := _measure(shown)) > self._left:
            shown = shown[: min(len(shown) - 1, len(shown) * self._left // size)]
        self._left -= size
        return CutText(shown, len(text) - len(shown))


def _measure(text: str) -> int:
    """Returns the bytes of a text in HTML."""
    return len(escape(text).encode(errors="replace"))
