"""Subtitles: a result as the cues of a .vtt or .srt file.

One cue covers the clip that was asked about; a result in segments has one cue for each segment, and
the cues of overlapping segments are on screen together. Times are a player's. Formats: WebVTT (https://www.w3.org/TR/webvtt1/)
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
    """Makes the cues about the request's input with this number.

    Their times are those of a player's clock, on which sound may begin before the first picture.
    """
    if result.segments:
        later_s = next((one.start_offset_s for one in result.sources if one.kind == "video"), None)
        return [
            Cue(part.start + (later_s or 0.0), part.end + (later_s or 0.0), part.text)
            for part in result.segments
        ]
    source = result.sources[number]
    later_s = source.start_offset_s or 0.0
    start_s = source.start or 0.0
    ends = [end for end in (source.end, source.duration_s) if end is not None]
    shown = [frame.pts_s for frame in result.frames if frame.input == number]
    end_s = min(ends, default=max(shown, default=start_s) + 1)
    text = "\n".join(one.text for one in result.answers)
    return [Cue(start_s + later_s, max(end_s, start_s) + later_s, text)]


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
