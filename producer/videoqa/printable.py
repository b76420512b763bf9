"""Text for terminals and logs: characters that would control either of them become escapes.

Servers, models, users and file names write text that a person reads on a terminal or in a log. There ESC may
move the cursor or set the clipboard, and a direction override may show another text than the one that is there.
"""

from __future__ import annotations

import logging
import re

__all__ = ["PrintableFormatter", "printable"]

_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f"
)
"""C0, DEL, C1, separators of lines, direction marks and overrides, invisible characters, lone surrogates, tags."""
_SHOWN = rf"[^\x00-\x7f{_HIDDEN}\u200c\u200d]"
_JOINER = rf"(?<!{_SHOWN})[\u200c\u200d]|[\u200c\u200d](?!{_SHOWN})"
"""A joiner that joins nothing: between letters beyond ASCII and in emoji it is part of the writing."""
_IN_LINE = re.compile(rf"[{_HIDDEN}]|{_JOINER}")
_IN_TEXT = re.compile(rf"\r(?=\n)|(?![\n\t\xad\u061c\u200e\u200f])[{_HIDDEN}]|{_JOINER}")
"""Direction marks and soft hyphens belong to prose in some languages; in a name they only deceive."""
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns the text with each control character and invisible one as an escape, such as `\x1b`.

    Arguments:
        lines: the text is prose of several lines: line breaks, tabs, direction marks and soft hyphens stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return (_IN_TEXT if lines else _IN_LINE).sub(_escape_text if lines else _escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _escape_text(found: re.Match[str]) -> str:
    """Returns nothing for the first half of a Windows line break."""
    is_break = found[0] == "\r" and found.string[found.end() : found.end() + 1] == "\n"
    return "" if is_break else _escape(found)


class PrintableFormatter(logging.Formatter):
    """Formats each record as one printable line, and a traceback as further ones with space before them.

    A message with a line break could otherwise write a second record of its own choice.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; a traceback that another formatter has kept in the record is made again."""
        if record.exc_info:
            record.exc_text = None
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Returns the line without a traceback."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: logging._SysExcInfoType) -> str:  # noqa: N802
        """Returns a traceback."""
        return _indent(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Returns the stack of a call."""
        return _indent(super().formatStack(stack_info))


def _indent(text: str) -> str:
    return "\n".join("    " + line for line in printable(text, lines=True).split("\n"))
