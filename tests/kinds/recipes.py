"""Recipes that the kinds share: plain clips by container and codec, and ways to vary them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from support.videos import Recipe

__all__ = [
    "ALT_REF",
    "AV1",
    "AVI",
    "BASE",
    "FRAGMENTS",
    "GIF",
    "HEVC",
    "LONG",
    "MKV",
    "MPEG2",
    "PLAIN",
    "TENTH",
    "TS",
    "VP9",
    "WEBM",
    "at_pts",
    "flags",
    "lasting",
    "with_x264",
    "with_x265",
]


def with_x264(params: str, recipe: Recipe) -> Recipe:
    return replace(recipe, codec_options={"x264-params": params})


def with_x265(params: str, recipe: Recipe) -> Recipe:
    quiet = "log-level=none:pools=1:frame-threads=1"
    return replace(recipe, codec="libx265", codec_options={"x265-params": f"{quiet}:{params}"})


def flags(movflags: str, recipe: Recipe) -> Recipe:
    return replace(recipe, options={"movflags": movflags})


def at_pts(first_s: Fraction, recipe: Recipe) -> Recipe:
    """Returns a recipe with this first pts, which the muxer keeps even if it is negative."""
    return replace(recipe, first_pts_s=first_s, options={"avoid_negative_ts": "disabled"})


def lasting(*milliseconds: int) -> tuple[Fraction, ...]:
    """Returns the times of pictures that last this long each, and of one more."""
    return tuple(Fraction(sum(milliseconds[:n]), 1000) for n in range(len(milliseconds) + 1))


BASE = Recipe()
PLAIN = replace(BASE, b_frames=0)
LONG = replace(BASE, frames=100)
MKV = replace(BASE, name="clip.mkv")
AVI = replace(PLAIN, name="clip.avi")
TS = replace(BASE, name="clip.ts")
MPEG2 = replace(BASE, name="clip.mpg", codec="mpeg2video")
HEVC = with_x265("keyint=12:bframes=2", BASE)
WEBM = replace(PLAIN, name="clip.webm", codec="libvpx")
ALT_REF = {
    "auto-alt-ref": "1",
    "lag-in-frames": "10",
    "deadline": "good",
    "cpu-used": "5",
    "b": "100k",
}
VP9 = replace(WEBM, codec="libvpx-vp9", codec_options={**ALT_REF, "cpu-used": "8"})
AV1 = replace(PLAIN, codec="libsvtav1", codec_options={"preset": "12", "svtav1-params": "lp=1"})
GIF = replace(PLAIN, name="clip.gif", codec="gif", pixel_format="rgb8", fps=Fraction(10))
FRAGMENTS = "frag_keyframe+empty_moov"
TENTH = Fraction(1, 10)
