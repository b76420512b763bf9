"""The intact clips that the fuzzer damages: 13 containers, with numbered pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from fuzz.child import Answer, Child
from support.videos import Recipe, write_clip

__all__ = ["CLIPS", "Clip", "write_clips"]

_WRITING_S = 120.0
_EVERY = {"fflags": "bitexact"}
"""Options for reproducible files: without them Matroska and Ogg write random ids."""


@dataclass(frozen=True)
class Clip:
    """A recipe and the name of its container, as in the table of counts."""

    container: str
    recipe: Recipe

    @property
    def name(self) -> str:
        """The clip's name, and that of its file; unique among `CLIPS`."""
        sound = "-sound" if self.recipe.sound_s else ""
        suffix = Path(self.recipe.name).suffix
        return f"{self.container.replace(' ', '-')}-{self.recipe.codec}{sound}{suffix}"


_MOVING = Recipe(frames=60, gop=12, options=_EVERY)
_PLAIN = replace(_MOVING, b_frames=0)
_HIDDEN = {"auto-alt-ref": "1", "lag-in-frames": "10", "deadline": "realtime", "cpu-used": "8"}
_ONE_THREAD = {"preset": "12", "svtav1-params": "lp=1"}
"""Options for one thread: with more, SVT-AV1's bytes vary on a busy machine."""
_UNEVEN_S = tuple(Fraction(40 * n + 15 * (n * n % 3), 1000) for n in range(60))


def _mp4(recipe: Recipe, flags: str) -> Recipe:
    return replace(recipe, options={**_EVERY, "movflags": flags})


CLIPS: Sequence[Clip] = (
    Clip("mp4 index last", _MOVING),
    Clip("mp4 index last", replace(_PLAIN, codec="libsvtav1", codec_options=_ONE_THREAD)),
    Clip("mp4 index first", replace(_mp4(_MOVING, "faststart"), sound_s=2.4)),
    Clip("mp4 index first", replace(_mp4(_MOVING, "faststart"), codec="libx265")),
    Clip("mp4 fragmented", _mp4(_MOVING, "frag_keyframe+empty_moov")),
    Clip("mov", replace(_MOVING, name="clip.mov", codec="mpeg4")),
    Clip("mov", replace(_MOVING, name="clip.mov", times_s=_UNEVEN_S)),
    Clip("mkv", replace(_MOVING, name="clip.mkv", sound_s=2.4)),
    Clip("mkv", replace(_MOVING, name="clip.mkv", codec="libx265", times_s=_UNEVEN_S)),
    Clip("webm", replace(_PLAIN, name="clip.webm", codec="libvpx-vp9", codec_options=_HIDDEN)),
    Clip("webm", replace(_PLAIN, name="clip.webm", codec="libvpx")),
    Clip("avi", replace(_MOVING, name="clip.avi", codec="mpeg4")),
    Clip("avi", replace(_PLAIN, name="clip.avi", codec="mjpeg", pixel_format="yuvj420p")),
    Clip("mpeg ts", replace(_MOVING, name="clip.ts", sound_s=2.4)),
    Clip("mpeg ts", replace(_MOVING, name="clip.ts", codec="mpeg2video")),
    Clip("mpeg ps", replace(_MOVING, name="clip.mpg", codec="mpeg2video")),
    Clip("flv", replace(_MOVING, name="clip.flv")),
    Clip("flv", replace(_PLAIN, name="clip.flv", codec="flv")),
    Clip("ogg", replace(_PLAIN, name="clip.ogv", codec="libvpx")),
    Clip("gif", replace(_PLAIN, name="clip.gif", codec="gif", pixel_format="rgb8", fps=Fraction(10))),
    Clip("asf", replace(_PLAIN, name="clip.wmv", codec="wmv2", format="asf", sound_s=0)),
)  # fmt: skip


def write_clips(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every clip by name; the same libraries give the same bytes each time.

    Clips are written until two processes agree: on a busy machine x264 wrote some 3 of 500 clips
    differently, and repeatedly so in the same process.
    """
    before = _written(folder)
    while (now := _written(folder)) != before:
        before = now
    return now


def _written(folder: Path) -> dict[str, bytes]:
    with Child(_writer) as child:
        child.ask(folder)
        answer = child.answer(_WRITING_S)
    if not isinstance(answer, Answer):
        raise TypeError(f"got {answer}, expected clips: their encoder does not work here")
    return dict(answer.value)


@contextmanager
def _writer() -> Iterator[Callable[[Path], dict[str, bytes]]]:
    yield _write


def _write(folder: Path) -> dict[str, bytes]:
    for clip in CLIPS:
        write_clip(folder / clip.name, clip.recipe)
    return {clip.name: (folder / clip.name).read_bytes() for clip in CLIPS}
