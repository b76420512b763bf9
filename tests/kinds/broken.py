"""Files that break off, and files that are no videos."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import BASE, FRAGMENTS, LONG, flags
from kinds.writers import write_with_cover
from videoqa.errors import NoVideoStream, VideoTruncated

__all__ = ["BROKEN"]

cut = partial(Kind, edit=partial(surgery.cut, share=0.6), ends_early=True)

CUT = {
    "mp4, cut at 60%": cut(flags("faststart", LONG)),
    "mp4, index last, cut at 60%": cut(LONG, refused=VideoTruncated),
    "mp4, fragments, cut at 60%": cut(flags(FRAGMENTS, LONG)),
    "mkv, cut at 60%": cut(replace(LONG, name="clip.mkv")),
    "ts, cut at 60%": cut(replace(LONG, name="clip.ts")),
    "flv, cut at 60%": cut(replace(LONG, name="clip.flv")),
    "avi, cut at 60%": cut(replace(LONG, name="clip.avi", codec="mpeg4", b_frames=0)),
    "mpg, cut at 60%": cut(replace(LONG, name="clip.mpg", codec="mpeg2video")),
}
REFUSED = {
    "sound alone": Kind(replace(BASE, video=False, sound_s=2), refused=NoVideoStream),
    "sound and a cover": Kind(
        replace(BASE, name="song.m4a", video=False, sound_s=2, format="mp4"),
        write_with_cover,
        refused=NoVideoStream,
    ),
}

BROKEN: dict[str, Kind] = {**CUT, **REFUSED}
