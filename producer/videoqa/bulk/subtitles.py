"""The subtitles of a row: a .vtt or .srt file beside each of its videos.

A file that is not ours is never replaced: the subtitles then lie in OUTPUT/subtitles/, and so do
those of videos that came by http(s).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal
from urllib.parse import quote

from videoqa import errors
from videoqa.bulk.manifest import Row
from videoqa.bulk.place import Place
from videoqa.contract import Result, Video, as_srt, as_vtt, make_cues
from videoqa.storage import quote_name

__all__ = ["write_subtitles"]

Kind = Literal["vtt", "srt"]


def write_subtitles(row: Row, result: Result, kind: Kind, place: Place) -> tuple[str, ...]:
    """One file a video of the row; returns where they lie.

    Raises:
        OutputDenied, OutputNotFound, OutputUnavailable: OUTPUT cannot be written.
    """
    written = []
    for n, item in enumerate(row.request.inputs):
        if isinstance(item, Video):
            found = make_cues(result, n)
            text = as_vtt(found, _note(row, n)) if kind == "vtt" else as_srt(found)
            written.append(_put(row, n, item.url, kind, text.encode(), place))
    return tuple(written)


def _note(row: Row, number: int) -> str:
    """Whose file it is, so that the row's next run may replace it. No name has a space."""
    return f"videoqa {quote_name(row.custom_id)}" + (f" {number}" if number else "")


def _put(row: Row, number: int, video: str, kind: Kind, content: bytes, place: Place) -> str:
    def is_foreign(there: bytes) -> bool:
        """SubRip has no notes: there only the very same is known as ours."""
        if kind == "srt":
            return there != content
        return f"NOTE {_note(row, number)}".encode() not in there.splitlines()

    last = f"%25{number}" if number else ""  # a bare percent sign, which is in no custom_id's name
    for url in _beside(video, kind):
        try:
            if place.store.write(url, content, keeps=is_foreign, content_type=f"text/{kind}"):
                return url
        except errors.OutputDenied:  # an archive that may only be read
            continue
    url = f"{place.url}/subtitles/{quote_name(row.custom_id)}{last}.{kind}"
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
