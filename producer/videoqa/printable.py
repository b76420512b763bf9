"""Text for terminals and logs: characters that would control either of them become escapes.

Servers, models, users and file names write text that a person reads on a terminal or in a log. There ESC may
move the cursor or set the clipboard, and a direction override may show another text than the one that is there.
"""

from __future__ import annotations

import logging
import re

__all__ = ["PrintableFormatter", "printable"]

_HIDDEN_RANGES = (
    (0x00, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x61C, 0x61C), (0x180E, 0x180E), (0x200B, 0x200B), (0x200E, 0x200F),
    (0x2028, 0x202E), (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFF9, 0xFFFB), (0xD800, 0xDFFF), (0xE0000, 0xE007F),
)  # fmt: skip
"""C0, DEL, C1, separators of lines, direction marks and overrides, invisible characters, lone surrogates, tags."""
_OF_PROSE = "\n\t\xad\u061c\u200e\u200f"
"""Direction marks and soft hyphens belong to prose in some languages; in a name they only deceive."""
_HIDDEN = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in _HIDDEN_RANGES)
_SHOWN = rf"[^\x00-\x7f{_HIDDEN}\u200c\u200d]"
_JOINER = re.compile(
    rf"[\u200c\u200d]{{2,}}|(?<!{_SHOWN})[\u200c\u200d]|[\u200c\u200d](?!{_SHOWN})"
)
"""A joiner that joins nothing: between letters beyond ASCII and in emoji it is part of the writing."""


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


_IN_LINE = {
    number: _escape(chr(number))
    for first, last in _HIDDEN_RANGES
    for number in range(first, last + 1)
} | {ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"}
"""The escape of each hidden character."""
_IN_TEXT = {number: shown for number, shown in _IN_LINE.items() if chr(number) not in _OF_PROSE}


def printable(text: str, *, lines: bool = False) -> str:
    r"""Returns the text with each control character and invisible one as an escape, such as `\x1b`.

    Arguments:
        lines: the text is prose of several lines: line breaks, tabs, direction marks and soft hyphens stay.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = text.replace("\r\n", "\n").translate(_IN_TEXT) if lines else text.translate(_IN_LINE)
    if "\u200c" in shown or "\u200d" in shown:
        return _JOINER.sub(lambda found: "".join(map(_escape, found[0])), shown)
    return shown


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
