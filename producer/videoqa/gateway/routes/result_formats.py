"""A result as JSON, as text, and as the subtitles that `videoqa caption` writes."""

from __future__ import annotations

from typing import Literal

from videoqa import errors
from videoqa.contract import Result, as_srt, as_vtt, make_cues

__all__ = ["MEDIA_TYPES", "ResultFormat", "render_result"]

ResultFormat = Literal["json", "text", "vtt", "srt"]
MEDIA_TYPES: dict[ResultFormat, str] = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
}


def render_result(result: Result, form: ResultFormat, number: int = 0) -> str:
    """Returns the result as text.

    Arguments:
        number: the input, from 0, about which the subtitles are.

    Raises:
        InvalidRequest: subtitles were asked for, and there is no video with this number.
    """
    if form == "json":
        return result.model_dump_json()
    if form == "text":
        parts = [
            *(segment.text for segment in result.segments),
            *(one.text for one in result.answers),
        ]
        return "\n".join(parts) + "\n"
    videos = [n for n, source in enumerate(result.sources) if source.kind == "video"]
    if not result.segments and number not in videos:
        raise errors.InvalidRequest(
            f"got format={form} and input={number}, expected the number of a video: "
            f"{', '.join(map(str, videos)) or 'the job has none'}",
            param="input",
        )
    cues = make_cues(result, number)
    return as_vtt(cues) if form == "vtt" else as_srt(cues)
