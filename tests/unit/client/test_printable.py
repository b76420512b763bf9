"""Text that leaves for a terminal or a log has no character that controls either."""

from __future__ import annotations

import io
import logging
import sys
from unittest.mock import patch

import pytest

from videoqa.printable import PrintableFormatter, printable
from videoqa.terminal import PlainConsole, guard_streams, unguard

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
"""An emoji of three, joined."""
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
"""A word that is written with a non-joiner."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain line, été, 日本, ✓", "a plain line, été, 日本, ✓"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\x9b31m\x7f\x85", r"\x9b31m\x7f\x85"),
        ("a\u202egpj.exe\u2066\u2069", r"a\u202egpj.exe\u2066\u2069"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("pass\u200dword\u200b\ufeff", r"pass\u200dword\u200b\ufeff"),
        ("\U000e0041", r"\U000e0041"),
        ("caf\udce9.mp4", r"caf\udce9.mp4"),
        (FAMILY, FAMILY),
        (PERSIAN, PERSIAN),
        ("é\u200d\u200dé", r"é\u200d\u200dé"),
    ],
)
def test_one_line_shows_what_controls_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_text_of_lines_keeps_line_breaks_and_tabs() -> None:
    assert printable("a\r\n\tb\rc\x1b\u2028", lines=True) == "a\n\tb\\rc\\x1b\\u2028"
    assert printable("\u05d0\u200f.", lines=True) == "\u05d0\u200f."
    assert printable("\u05d0\u200f.") == "\u05d0\\u200f."


def print_pieces(pieces: list[str]) -> str:
    out = io.StringIO()
    with patch.object(sys, "stdout", out), guard_streams():
        for piece in pieces:
            print(piece, end="", flush=True)
    return out.getvalue()


@pytest.mark.parametrize(
    "text", [FAMILY, PERSIAN, "a\r\nb", "a\u200db", "é\u200d", "é\r", "\x1b\u200dé", "é\u200d\u200dé", "\x1b[31m"]
)  # fmt: skip
def test_a_stream_is_shown_as_the_whole_text_wherever_it_is_cut(text: str) -> None:
    whole = printable(text, lines=True)
    for at in range(len(text) + 1):
        assert print_pieces([text[:at], text[at:]]) == whole
    assert print_pieces(list(text)) == whole


@pytest.mark.parametrize("terminal", [True, False])
def test_rich_shows_markup_and_sequences_as_text(terminal: bool) -> None:
    foreign = "[red]x[/red] [link=http://evil]y[/link] :smile: \x1b]8;;http://evil\x07z\u202e"
    out = io.StringIO()
    with patch.object(sys, "stderr", out), guard_streams():
        console = PlainConsole(stderr=True)
        console._force_terminal = terminal
        console.print(foreign)
        with console.status(foreign) as line:
            line.update(foreign + "2")
    assert printable(foreign) in out.getvalue()
    assert "\x1b]8" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_json_passes_as_it_is_and_streams_come_back() -> None:
    out = io.StringIO()
    with patch.object(sys, "stdout", out):
        with guard_streams():
            print('"\u202e"', file=unguard(sys.stdout))
        assert sys.stdout is out
    assert out.getvalue() == '"\u202e"\n'


def format_record(message: str, *args: object, error: Exception | None = None) -> str:
    record = logging.makeLogRecord(
        {
            "msg": message,
            "args": args,
            "levelname": "INFO",
            "exc_info": (type(error), error, None) if error else None,
        }
    )
    logging.Formatter().format(record)  # keeps its own text of the traceback in the record
    return PrintableFormatter("%(levelname)s %(message)s").format(record)


def test_a_record_is_one_line_and_its_traceback_cannot_look_like_another() -> None:
    assert format_record("got %s", "\x1b[2J\nINFO all is well\u2066") == (
        r"INFO got \x1b[2J\nINFO all is well\u2066"
    )
    text = format_record("it failed", error=ValueError("x\nINFO all is well\x1b[2J"))
    first, *others = text.split("\n")
    assert first == "INFO it failed"
    assert all(line.startswith("    ") for line in others)
    assert r"INFO all is well\x1b[2J" in text
