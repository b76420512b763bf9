"""Subtitles: an answer as cues of a .vtt or .srt file beside its video.

One cue covers the clip that was asked about; a result with segments has a cue for each. Formats:
WebVTT (https://www.w3.org/TR/webvtt1/) and SubRip. A file that is not ours is never replaced: the
subtitles then lie in OUTPUT/subtitles/, and so do those of videos that came by http(s).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from videoqa import errors
from videoqa.bulk.manifest import Row
from videoqa.bulk.place import Place
from videoqa.job import Result, Video
from videoqa.objects import one_name

__all__ = ["Cue", "as_srt", "as_vtt", "cues", "write_subtitles"]

Kind = Literal["vtt", "srt"]
_MARK = "NOTE videoqa "


@dataclass(frozen=True)
class Cue:
    """Text on screen in [start_s, end_s)."""

    start_s: float
    end_s: float
    text: str


def write_subtitles(row: Row, result: Result, kind: Kind, place: Place) -> tuple[str, ...]:
    """One file a video of the row; returns where they lie.

    Raises:
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT cannot be written.
    """
    written = []
    for n, item in enumerate(row.request.inputs):
        if isinstance(item, Video):
            found = cues(item, n, result)
            text = as_vtt(found, row.custom_id) if kind == "vtt" else as_srt(found)
            written.append(_put(row, n, item.url, kind, text.encode(), place))
    return tuple(written)


def cues(video: Video, number: int, result: Result) -> list[Cue]:
    """Of the row's input with this number."""
    segments = getattr(result, "segments", None)
    if segments:
        return [Cue(part.start, part.end, part.text) for part in segments]
    start_s = video.start or 0.0
    ends = [video.end, result.sources[number].duration_s if number < len(result.sources) else None]
    shown = [frame.pts_s for frame in result.frames if frame.input == number]
    end_s = min((end for end in ends if end is not None), default=max(shown, default=start_s) + 1)
    return [Cue(start_s, max(end_s, start_s), "\n".join(one.text for one in result.answers))]


def as_vtt(found: list[Cue], custom_id: str) -> str:
    """The note says whose file it is, so that the row's next run may replace it."""
    blocks = ["WEBVTT", _MARK + one_name(custom_id)]
    for cue in found:
        text = cue.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        blocks.append(f"{_clock(cue.start_s)} --> {_clock(cue.end_s)}\n{_lines(text)}")
    return "\n\n".join(blocks) + "\n"


def as_srt(found: list[Cue]) -> str:
    blocks = [
        f"{n}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n"
        + _lines(cue.text.replace("-->", "->"))
        for n, cue in enumerate(found, 1)
    ]
    return "\n\n".join(blocks) + "\n"


def _lines(text: str) -> str:
    """Without blank lines, which would end the cue."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def _clock(seconds: float, point: str = ".") -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _put(row: Row, number: int, video: str, kind: Kind, content: bytes, place: Place) -> str:
    mark = content.split(b"\n\n")[1] if kind == "vtt" else content

    def is_foreign(there: bytes) -> bool:
        return mark not in there

    last = f"-{number}" if number else ""
    for url in _beside(video, kind):
        try:
            if place.store.write(url, content, keeps=is_foreign, content_type=f"text/{kind}"):
                return url
        except errors.OutputDenied:  # an archive that may only be read
            continue
    url = f"{place.url}/subtitles/{one_name(row.custom_id)}{last}.{kind}"
    place.store.write(url, content, content_type=f"text/{kind}")
    return url


def _beside(video: str, kind: Kind) -> Iterator[str]:
    """`clip.vtt` for `clip.mp4`. Inputs name S3 keys as they are, objects with percents."""
    scheme, _, path = video.partition("://")
    if scheme not in ("file", "s3"):
        return
    if scheme == "s3":
        path = quote(path.partition("?versionId=")[0])
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    if stem:
        yield f"{scheme}://{folder}/{stem}.{kind}"
