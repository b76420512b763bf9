"""Files that break off, and files that are no videos."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from kinds import surgery
from kinds.kind import Kind
from kinds.recipes import BASE, FRAGMENTS, LONG, PLAIN, flags
from kinds.writers import write_with_cover
from videoqa.errors import NotAVideo, NoVideoStream, VideoTruncated

__all__ = ["BROKEN"]

cut = partial(Kind, edit=partial(surgery.cut, share=0.6), ends_early=True)
still = partial(replace, PLAIN, frames=1, format="image2pipe")

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
    "a PNG": Kind(still(name="clip.png", codec="png", pixel_format="rgb24"), refused=NotAVideo),
    "a JPEG": Kind(
        still(name="clip.jpg", codec="mjpeg", pixel_format="yuvj420p"), refused=NotAVideo
    ),
    "animated PNG": Kind(
        replace(
            PLAIN, name="clip.png", codec="apng", pixel_format="rgb24", frames=5, format="apng"
        ),
        refused=NotAVideo,
    ),
    "animated WebP": Kind(
        replace(PLAIN, name="clip.webp", codec="libwebp_anim", frames=5), refused=NotAVideo
    ),
}

BROKEN: dict[str, Kind] = {**CUT, **REFUSED}
