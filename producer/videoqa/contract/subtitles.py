"""Subtitles: a result as the cues of a .vtt or .srt file.

One cue covers the clip that was asked about; a result in segments has one cue for each segment, and
the cues of overlapping segments are on screen together. Formats: WebVTT (https://www.w3.org/TR/webvtt1/)
and SubRip.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from videoqa.contract.job import Result

__all__ = ["Cue", "as_srt", "as_vtt", "format_timestamp", "make_cues"]

_ARROW = re.compile("(?<!-)--+>")
"""An arrow with all its dashes: without one of them, `--->` would still hold an arrow. It is looked for at the
first dash of a row only."""


@dataclass(frozen=True)
class Cue:
    """Text on screen in [start_s, end_s)."""

    start_s: float
    end_s: float
    text: str


def make_cues(result: Result, number: int = 0) -> list[Cue]:
    """Makes the cues about the request's input with this number."""
    if result.segments:
        return [Cue(part.start, part.end, part.text) for part in result.segments]
    source = result.sources[number]
    start_s = source.start or 0.0
    ends = [end for end in (source.end, source.duration_s) if end is not None]
    shown = [frame.pts_s for frame in result.frames if frame.input == number]
    end_s = min(ends, default=max(shown, default=start_s) + 1)
    return [Cue(start_s, max(end_s, start_s), "\n".join(one.text for one in result.answers))]


def as_vtt(found: Sequence[Cue], note: str = "") -> str:
    """Formats cues as WebVTT; `note` is a line for readers of the file that no player shows."""
    blocks = ["WEBVTT", *([f"NOTE {note}"] if note else [])]
    for cue in found:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(
            f"{format_timestamp(cue.start_s)} --> {format_timestamp(cue.end_s)}\n{_drop_blank_lines(text)}"
        )
    return "\n\n".join(blocks) + "\n"


def as_srt(found: Sequence[Cue]) -> str:
    """Formats cues as SubRip."""
    blocks = [
        f"{n}\n{format_timestamp(cue.start_s, ',')} --> {format_timestamp(cue.end_s, ',')}\n"
        + _drop_blank_lines(_ARROW.sub("->", cue.text))
        for n, cue in enumerate(found, 1)
    ]
    return "\n\n".join(blocks) + "\n"


def format_timestamp(seconds: float, point: str = ".") -> str:
    """Formats a time as `01:02:03.500`, always with hours, which SubRip requires."""
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _drop_blank_lines(text: str) -> str:
    """Removes blank lines, which would end the cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
