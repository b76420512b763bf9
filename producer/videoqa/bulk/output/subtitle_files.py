"""Subtitles of a row: a .vtt or .srt file for each of its videos, in OUTPUT or beside the video.

Beside a video, a file that this row's run did not write is never replaced: the subtitles then go to
OUTPUT/subtitles/, as do those of videos with an http(s) URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import quote

from videoqa import errors
from videoqa.bulk.manifest.manifest import Row
from videoqa.bulk.output.output_dir import OutputDir
from videoqa.contract import Result, Video, as_srt, as_vtt, make_cues, quote_name

__all__ = ["SubtitleFormat", "Subtitles", "find_written", "write_subtitles"]

SubtitleFormat = Literal["vtt", "srt"]


@dataclass(frozen=True)
class Subtitles:
    """The subtitle files that a run writes."""

    kind: SubtitleFormat
    beside_videos: bool = False
    """Beside the videos, where that may be written; else in OUTPUT/subtitles/."""

    def __str__(self) -> str:
        """Returns the kind and place as the index of OUTPUT has them."""
        return f"{self.kind} beside" if self.beside_videos else self.kind


def find_written(urls: list[str], output_url: str) -> str:
    """Returns the kind and place of the subtitle files with these URLs; empty: there are none."""
    kinds = [kind for kind in get_args(SubtitleFormat) for url in urls if url.endswith(f".{kind}")]
    if not kinds:
        return ""
    is_inside = all(url.startswith(f"{output_url}/subtitles/") for url in urls)
    return str(Subtitles(kinds[0], beside_videos=not is_inside))


def write_subtitles(
    row: Row, result: Result, subtitles: Subtitles, output: OutputDir
) -> tuple[str, ...]:
    """Writes one file for each video of the row; returns their URLs.

    Raises:
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT cannot be written.
    """
    written = []
    for n, item in enumerate(row.request.inputs):
        if isinstance(item, Video):
            found = make_cues(result, n)
            is_vtt = subtitles.kind == "vtt"
            text = as_vtt(found, _ownership_note(row, n)) if is_vtt else as_srt(found)
            written.append(_write_file(row, n, item.url, subtitles, text.encode(), output))
    return tuple(written)


def _ownership_note(row: Row, number: int) -> str:
    """Returns the comment by which the row's next run knows its own file. No name has a space."""
    return f"videoqa {quote_name(row.custom_id)}" + (f" {number}" if number else "")


def _write_file(
    row: Row, number: int, video: str, subtitles: Subtitles, content: bytes, output: OutputDir
) -> str:
    kind = subtitles.kind

    def is_foreign(there: bytes) -> bool:
        """Returns True for a file of somebody else. SubRip has no comments: only equal content is ours."""
        if kind == "srt":
            return there != content
        return f"NOTE {_ownership_note(row, number)}".encode() not in there.splitlines()

    suffix = f"=={number + 1}" if number else ""  # no custom_id's name has two of them
    for url in _sibling_urls(video, kind) if subtitles.beside_videos else ():
        try:
            if output.store.write(url, content, keeps=is_foreign, content_type=f"text/{kind}"):
                return url
        except errors.OutputDenied:  # an archive without write access
            continue
    url = f"{output.url}/subtitles/{quote_name(row.custom_id)}{suffix}.{kind}"
    output.store.write(url, content, content_type=f"text/{kind}")
    return url


def _sibling_urls(video: str, kind: SubtitleFormat) -> Iterator[str]:
    """Yields `clip.vtt` for `clip.mp4`. Inputs name S3 keys as they are, the store percent-encodes them."""
    scheme, _, path = video.partition("://")
    if scheme not in ("file", "s3"):
        return
    if scheme == "s3":
        path = quote(path.partition("?versionId=")[0])
    folder, _, name = path.rpartition("/")
    stem = name.rpartition(".")[0] or name
    if stem:
        yield f"{scheme}://{folder}/{stem}.{kind}"
