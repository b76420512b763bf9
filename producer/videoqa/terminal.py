"""The terminal of a command: streams and consoles that write printable text only.

`guard_streams` stands around a whole command, so that no `print` can forget it. Rich writes sequences of its own
to the terminal, so it gets past the guard, and `PlainConsole` makes the text that it is given printable.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from videoqa.printable import PrintableFormatter, printable

__all__ = ["PlainConsole", "guard_streams", "trust", "unguard"]

_MAY_CHANGE = ("\r", "\u200c", "\u200d")
"""Characters whose meaning depends on the next one."""
_trusted: set[str] = set()


class _GuardedFile:
    """A text file that makes what is written to it printable, also across two writes."""

    def __init__(self, file: TextIO) -> None:
        self.rich_proxied_file = file
        """The file itself; the name is that by which rich looks for it."""
        self._before = ""
        """The character that was written last."""
        self._held = ""

    def write(self, text: str) -> int:
        """Writes the text; a last character that depends on the next one is kept until then."""
        for own in _trusted:
            before, found, after = text.partition(own)
            if found:
                self._write(before)
                self.end()
                self.rich_proxied_file.write(own)
                self._write(after)
                return len(text)
        self._write(text)
        return len(text)

    def _write(self, text: str) -> None:
        whole = self._held + text
        self._held = whole[-1] if whole.endswith(_MAY_CHANGE) else ""
        whole = whole[: len(whole) - len(self._held)]
        if whole:
            shown = printable(self._before + whole, lines=True)
            self.rich_proxied_file.write(shown[len(self._before) :])
            # One that is itself shown as an escape says nothing about the next.
            self._before = whole[-1] if printable(whole[-1]) == whole[-1] else ""

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each line."""
        for line in lines:
            self.write(line)

    def end(self) -> None:
        """Writes a last character that was kept."""
        self.rich_proxied_file.write(printable(self._held))
        self._held = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def trust(text: str) -> str:
    """Returns the text, which the guard will pass as it is: help, in colours of our own."""
    _trusted.add(text)
    return text


@contextmanager
def guard_streams() -> Iterator[None]:
    """Makes all that the block prints and logs printable."""
    out, err = _GuardedFile(sys.stdout), _GuardedFile(sys.stderr)
    handler = logging.StreamHandler(cast("TextIO", err))
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PrintableFormatter())
    before = sys.stdout, sys.stderr, logging.lastResort
    sys.stdout, sys.stderr, logging.lastResort = cast("TextIO", out), cast("TextIO", err), handler
    try:
        yield
    finally:
        sys.stdout, sys.stderr, logging.lastResort = before
        out.end()
        err.end()


def unguard(file: TextIO) -> TextIO:
    """Returns the stream behind the guard, for JSON: it escapes by itself, and a script reads it."""
    return cast("TextIO", getattr(file, "rich_proxied_file", file))


class PlainConsole(Console):
    """A console that shows text as it is: neither markup nor control characters in it have an effect."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = True) -> None:
        super().__init__(
            stderr=stderr, soft_wrap=soft_wrap, highlight=False, markup=False, emoji=False
        )

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Returns a line that can be replaced while the block runs."""
        return _PlainStatus(_make_plain(status), console=self, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Returns a text whose control characters are escapes; rich leaves out some of them."""
        return super().render_str(printable(text, lines=True), **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """Renders the segments; those that are no sequences of rich's own become printable."""
        return super()._render_buffer(
            segment
            if segment.control
            else Segment(printable(segment.text, lines=True), segment.style)
            for segment in buffer
        )


class _PlainStatus(Status):
    """A line on the terminal; rich's own would take markup in it."""

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        """Replaces the line."""
        super().update(None if status is None else _make_plain(status), **options)


def _make_plain(status: RenderableType) -> RenderableType:
    return Text(printable(status)) if isinstance(status, str) else status
